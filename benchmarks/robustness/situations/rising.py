"""Losses that rise for good reasons, and placement of the state by names."""

from __future__ import annotations

import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import optax

import alphaopt_jax as alphaopt
from benchmarks.robustness import games
from benchmarks.robustness.situations.trainings import Figure

_SWITCH, _AFTER = 400, 150


def _after_a_switch(factor: float, *, passes: bool) -> float:
    """The loss 150 steps after the targets are multiplied and exchanged."""
    tx = alphaopt.alphaopt()
    keys = jax.random.split(jax.random.key(0), 4)
    inputs = jax.random.normal(keys[0], (64, 6))
    targets = jnp.tanh(inputs @ jax.random.normal(keys[1], (6, 2)))
    params = {
        "first": 0.4 * jax.random.normal(keys[2], (6, 16)),
        "second": 0.2 * jax.random.normal(keys[3], (16, 2)),
    }

    def one(carry: Any, step: chex.Array) -> tuple[Any, chex.Array]:
        params, state = carry
        target = jnp.where(step < _SWITCH, targets, factor * targets[:, ::-1])

        def cost(params: Any) -> chex.Array:
            outputs = jax.nn.leaky_relu(inputs @ params["first"]) @ params["second"]
            return jnp.mean(jnp.square(outputs - target))

        value, grads = jax.value_and_grad(cost)(params)
        given = {"value": value} if passes else {}
        updates, state = tx.update(grads, state, params, **given)
        return (optax.apply_updates(params, updates), state), value

    carry = (params, tx.init(params))
    steps = jnp.arange(_SWITCH + _AFTER + 1)
    return float(jax.jit(lambda carry: jax.lax.scan(one, carry, steps)[1][-1])(carry))


def task_switch(factor: float = 30.0) -> Figure:
    """Another task with targets of another size: the loss with `value` over that without."""
    given, absent = (_after_a_switch(factor, passes=passes) for passes in (True, False))
    text = f"loss {given:.2g} with `value`, {absent:.2g} without, {_AFTER} steps after the switch"
    return Figure(given / absent, text)


def ring() -> Figure:
    """A generator whose points are to lie on a ring: share of steps with a backoff."""
    # At the last parameters, as in the measurement before the fix.
    optimizer = games.game_optimizers()[games.WITH]._replace(evaluated=games.last_params)
    outcome = games.play("ring", optimizer, (0,))
    share, error = float(outcome.backed_off[0]), float(outcome.errors[0])
    return Figure(share, f"a backoff in {100 * share:.1f} % of the steps, error {error:.2g}")


def rules_by_name() -> Figure:
    """Rules for a model's `kernel`: number of arrays that they match and the model has not."""
    length = min(jax.device_count(), 2)
    mesh = jax.make_mesh(
        (length,), ("d",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:length]
    )
    params = {"dense": {"kernel": jnp.ones((4, 6)), "bias": jnp.zeros(6)}}
    tx = alphaopt.alphaopt()
    matched = []

    def place(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path)
        is_kernel = re.search("kernel", name) is not None and leaf.ndim == 2
        if is_kernel:
            matched.append(leaf.shape)
        return NamedSharding(mesh, P("d", None) if is_kernel else P())

    out = jax.tree.map_with_path(place, jax.eval_shape(tx.init, params))
    jax.jit(tx.init, out_shardings=out)(params)
    foreign = sum(shape != (4, 6) for shape in matched)
    return Figure(float(foreign), f"placed; {foreign} of {len(matched)} arrays are not the model's")


def strict_rules() -> Figure:
    """Rules for every name of a model and none for others: names of the state that they miss."""
    names = jax.tree.leaves_with_path(
        jax.eval_shape(alphaopt.alphaopt(learn=True).init, {"kernel": jnp.ones((4, 6))})
    )
    used = ("bias", "scale", "embedding", "weight")
    wrong = [
        name
        for name in (jax.tree_util.keystr(path) for path, _ in names)
        if any(re.search(rf"\['{each}'\]", name) for each in used)
    ]
    return Figure(float(len(wrong)), f"{len(wrong)} names of models among {len(names)}")
