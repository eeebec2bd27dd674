"""Calls as users of other libraries write them."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax

import alphaopt_jax as alphaopt
from benchmarks.robustness.situations import trainings
from benchmarks.robustness.situations.trainings import Figure


def optimistix_solver() -> Figure:
    """Optimistix hashes the optimizer: distance of its solution from the minimum."""
    import optimistix

    solver = optimistix.OptaxMinimiser(alphaopt.alphaopt(), rtol=1e-4, atol=1e-4)
    solution = optimistix.minimise(
        lambda point, _: jnp.sum(jnp.square(point - 1.0)),
        solver,
        jnp.full(2, 3.0),
        max_steps=1000,
        throw=False,
    )
    apart = float(jnp.max(jnp.abs(solution.value - 1.0)))
    return Figure(apart, f"minimum found within {apart:.1g}")


def agents_compare() -> Figure:
    """Equal agents are equal and have one hash; other agents are not equal."""
    one, same = alphaopt.load_agent("base"), alphaopt.load_agent("base")
    other = alphaopt.agent_from_state(alphaopt.alphaopt(agent=None).init(jnp.zeros(1)))
    right = one == same and hash(one) == hash(same) and one != other and len({one, same}) == 1
    return Figure(float(right), "agents hash and compare" if right else "they do not compare")


def whole_module() -> Figure:
    """An Equinox module is passed whole: distance of the updates from those of its arrays."""
    import equinox as eqx

    model = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    grads = eqx.filter_grad(lambda model: jnp.sum(model(jnp.ones(2))))(model)
    arrays, tx = eqx.filter(model, eqx.is_inexact_array), alphaopt.alphaopt()
    found, _ = tx.update(grads, tx.init(arrays), model)
    expected, _ = tx.update(grads, tx.init(arrays), arrays)
    return Figure(trainings.distance(found, expected), "updates as of its arrays")


def other_leaves() -> Figure:
    """Numbers and names among the parameters, without a gradient."""
    params = {"w": jnp.ones(3), "steps": 3, "name": "net"}
    grads = {"w": jnp.full(3, 0.5), "steps": None, "name": None}
    tx = alphaopt.alphaopt()
    state = tx.init({"w": params["w"]})
    found, _ = tx.update(grads, state, params)
    expected, _ = tx.update({"w": grads["w"]}, state, {"w": params["w"]})
    return Figure(trainings.distance(found["w"], expected["w"]), "updates as without them")


def nnx_episode(*, chained: bool = False, pure: bool = False) -> Figure:
    """A new episode of an `nnx.Optimizer`: number of updates made after one step in it.

    Args:
      chained: Whether AlphaOpt is a part of a chain.
      pure: Whether the state is taken out of its variables first.
    """
    from flax import nnx

    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    tx = alphaopt.alphaopt()
    tx = optax.chain(optax.clip_by_global_norm(1.0), tx) if chained else tx
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    def step() -> None:
        cost = lambda model: jnp.mean(jnp.square(model(jnp.ones((4, 2)))))  # noqa: E731
        value, grads = nnx.value_and_grad(cost)(model)
        optimizer.update(model, grads, value=value)

    step()
    step()
    if pure:
        new = alphaopt.new_episode(nnx.as_pure(optimizer.opt_state))
        nnx.update(optimizer.opt_state, nnx.state(new))
    else:
        optimizer.opt_state = nnx.data(alphaopt.new_episode(optimizer.opt_state))
    step()
    made = float(alphaopt.metrics(optimizer.opt_state)["updates_made"])
    return Figure(made, f"{made:.0f} update in the new episode")


def _after_a_rollout(seed: int | jax.Array) -> jax.Array:
    params = jnp.array([1.0, -2.0])
    tx = trainings.make("learn=True", seed=seed)
    return trainings.train(tx, lambda params: jnp.sum(jnp.square(params)), params, 10).params


def other_keys() -> Figure:
    """Seeds of other kinds of keys: distance from the training with the same bits."""
    key = jax.random.key(5, impl="rbg")
    apart = trainings.distance(_after_a_rollout(key), _after_a_rollout(jax.random.key_data(key)))
    return Figure(apart, "trains as with the key's bits")


def other_default_keys() -> Figure:
    """Another default kind of keys: distance from the training under the usual default."""
    with jax.default_prng_impl("rbg"):
        found = _after_a_rollout(3)
    return Figure(trainings.distance(found, _after_a_rollout(3)), "trains as with the usual kind")


def carried_over_rate(rate: float = 1e-3) -> Figure:
    """A step size of Adam: number of warnings that say what the number does."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        alphaopt.alphaopt(rate)
    count = sum("multiplies" in str(each.message) for each in caught)
    return Figure(count, "a warning says what the number does" if count else "no warning")


def usual_rates() -> Figure:
    """Multipliers near one, and schedules: number of warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for rate in (0.5, 1.0, np.float32(2.0), optax.constant_schedule(1e-3), jnp.ones(())):
            alphaopt.alphaopt(rate)
    return Figure(len(caught), f"{len(caught)} warnings")
