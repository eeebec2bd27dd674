"""Trainings within `jax.shard_map` and `jax.vmap`."""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from benchmarks.robustness.situations import trainings
from benchmarks.robustness.situations.trainings import Figure

_STEPS = 20  # Two rounds of learning, and steps after them.


def _mesh(axes: int) -> jax.sharding.Mesh:
    """A mesh of two devices along each axis, or of one where there are too few."""
    length = 2 if jax.device_count() >= 2**axes else 1
    auto = (jax.sharding.AxisType.Auto,) * axes
    return jax.make_mesh(
        (length,) * axes, ("rows", "columns")[:axes], auto, devices=jax.devices()[: length**axes]
    )


def _data(parts: int) -> chex.Array:
    """Inputs, `float32[4 * parts, 3]`: four rows for each device, different on each."""
    return 1.0 + 0.5 * jax.random.normal(jax.random.key(0), (4 * parts, 3))


def _cost(inputs: chex.Array) -> trainings.Cost:
    return lambda weights: jnp.mean(jnp.square(inputs @ weights - 1.0))


_START = jnp.array([0.1, -0.2, 0.3])


def of_each_device(mode: str, axes: int = 1) -> float:
    """Every device trains parameters of its own.

    Args:
      mode: The mode.
      axes: Axes of the mesh.

    Returns:
      Distance of the parameters from those of single trainings.
    """
    mesh, tx = _mesh(axes), trainings.make(mode)
    data = _data(mesh.size)

    def local(inputs: chex.Array) -> chex.Array:
        start = jax.lax.pcast(_START, mesh.axis_names, to="varying")
        return trainings.scan(tx, _cost(inputs), start, _STEPS).params[None]

    spec = P(mesh.axis_names)
    found = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec))(data)
    alone = [
        trainings.train(tx, _cost(inputs), _START, _STEPS).params
        for inputs in jnp.split(data, mesh.size)
    ]
    return trainings.distance(found, jnp.stack(alone))


def of_all_devices(mode: str) -> float:
    """Devices train one model, each on a part of the data, with averaged gradients.

    Args:
      mode: The mode.

    Returns:
      Distance of the parameters from those of a training with all data.
    """
    mesh, tx = _mesh(1), trainings.make(mode)
    data = _data(mesh.size)

    def local(inputs: chex.Array) -> chex.Array:
        def cost(weights: chex.Array) -> chex.Array:
            return jax.lax.pmean(_cost(inputs)(weights), mesh.axis_names)

        return trainings.scan(tx, cost, _START, _STEPS).params

    found = jax.shard_map(local, mesh=mesh, in_specs=P(mesh.axis_names), out_specs=P())(data)
    return trainings.distance(found, trainings.train(tx, _cost(data), _START, _STEPS).params)


def products_of_each_call(jaxpr: Any) -> int:
    """Number of matrix products in a program outside of conditional training loops.

    Args:
      jaxpr: The program.

    Returns:
      The number, without those in conditionals one branch of which has a loop with matrix products.
    """
    count = 0
    for equation in jaxpr.eqns:
        parts = _parts(equation)
        if _name(equation) == "cond" and any(_trains(part) for part in parts):
            continue
        count += _name(equation) == "dot_general"
        count += sum(products_of_each_call(part) for part in parts)
    return count


def _trains(jaxpr: Any) -> bool:
    """Whether a program has a loop with matrix products, not within another conditional."""
    for equation in jaxpr.eqns:
        parts = _parts(equation)
        if _name(equation) in ("scan", "while") and any(map(products_of_each_call, parts)):
            return True
        if _name(equation) != "cond" and any(map(_trains, parts)):
            return True
    return False


def _name(equation: Any) -> str:
    return equation.primitive.name


def _parts(equation: Any) -> list[Any]:
    """The programs within an equation."""
    found = jax.tree.leaves(
        list(equation.params.values()), is_leaf=lambda node: hasattr(node, "eqns")
    )
    found = [getattr(node, "jaxpr", node) for node in found]
    return [node for node in found if hasattr(node, "eqns")]


def products_of_a_step(mode: str, members: Sequence[int]) -> int:
    """Matrix products of every step: those of a round of learning are not among them.

    Args:
      mode: The mode.
      members: Lengths of the axes that `jax.vmap` adds; none for a single training.

    Returns:
      Number of matrix products; more, if rounds of learning are not conditional.
    """
    tx = trainings.make(mode)
    update = lambda grads, state, params: tx.update(grads, state, params, value=jnp.sum(grads))  # noqa: E731
    init = tx.init
    for _ in members:
        update, init = jax.vmap(update), jax.vmap(init)
    params = jnp.ones((*members, 3))
    program = jax.make_jaxpr(update)(params, init(params), params)
    return products_of_each_call(program.jaxpr)


def members_equal_single_trainings(
    mode: str, members: tuple[int, ...] = (3,), *, faulty: bool = False
) -> float:
    """Trainings of several starts at once.

    Args:
      mode: The mode.
      members: Lengths of the axes that `jax.vmap` adds.
      faulty: Whether each member has a loss that is not finite at steps of its own.

    Returns:
      Distance of parameters and counts of skipped steps from those of single trainings.
    """
    tx = trainings.make(mode)
    count = math.prod(members)
    starts = jax.random.normal(jax.random.key(1), (count, 3))
    numbers = jnp.arange(count)

    def one(start: chex.Array, number: chex.Array) -> tuple[chex.Array, chex.Array]:
        def step(carry: Any, index: chex.Array) -> tuple[Any, None]:
            params, state = carry
            value, grads = jax.value_and_grad(_cost(_data(1)))(params)
            if faulty:
                is_faulty = (index % (number + 3) == 2) & (number > 0)
                value = jnp.where(is_faulty, jnp.nan, value)
            updates, state = tx.update(grads, state, params, value=value)
            return (params + updates, state), None

        carry = (start, tx.init(start))
        (params, state), _ = jax.lax.scan(step, carry, jnp.arange(_STEPS))
        return params, state.updates_skipped

    mapped = one
    for _ in members:
        mapped = jax.vmap(mapped)
    found = jax.jit(mapped)(starts.reshape(*members, 3), numbers.reshape(members))
    found = jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[len(members) :]), found)
    single = jax.jit(one)
    alone = [single(start, number) for start, number in zip(starts, numbers, strict=True)]
    return trainings.distance(found, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone))


def seeds_under_vmap() -> Figure:
    """The rows of `products_of_a_step` and `members_equal_single_trainings`, over the learners."""
    pairs = [
        (products_of_a_step(mode, ()), products_of_a_step(mode, (8,)))
        for mode in ("learn=True", "from scratch")
    ]
    alone, batched = (sum(each) for each in zip(*pairs, strict=True))
    return Figure(batched / alone, f"{alone} matrix products a step alone, {batched} under `vmap`")
