"""Agents with arbitrary parameters keep the optimized parameters finite and a quadratic bounded."""

import functools

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import alphaopt_jax as alphaopt

_STEPS = 300
_PARAMS = {"w": jnp.linspace(-1.0, 2.0, 12).reshape(4, 3), "b": jnp.zeros(3)}


def _loss(params):
    curvatures = jnp.linspace(0.1, 10.0, 12).reshape(4, 3)
    return jnp.sum(curvatures * jnp.square(params["w"] - 0.5)) + jnp.sum(
        jnp.square(params["b"] + 1.0)
    )


@functools.cache
def _training(learn):
    """Trains a quadratic with an agent's parameters: losses, all finite, skipped updates."""
    tx = alphaopt.alphaopt(learn=learn)

    @jax.jit
    def train(agent):
        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(_loss)(params)
            updates, state = tx.update(grads, state, params, value=value)
            params = optax.apply_updates(params, updates)
            finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in params.values()]))
            return (params, state), (value, finite)

        begun = tx.init(_PARAMS)._replace(agent=tuple(jax.tree.leaves(agent)))
        (params, state), (losses, finite) = jax.lax.scan(
            step, (_PARAMS, begun), None, length=_STEPS
        )
        return jnp.append(losses, _loss(params)), jnp.all(finite), state.updates_skipped

    return train


def _hostile(kind, exponent, seed, value):
    """The pretrained agent with scaled, random or partly non-finite parameters."""
    generator = np.random.default_rng(seed)
    leaves, structure = jax.tree.flatten(dict(alphaopt.load_agent("base").params))
    hostile = []
    for leaf in leaves:
        drawn = generator.normal(size=leaf.shape)
        leaf = {"random": drawn, "signs": np.sign(drawn)}.get(kind, np.asarray(leaf, np.float64))
        leaf = np.clip(10.0**exponent * leaf, -3e38, 3e38).astype(np.float32)
        if kind == "not finite":
            leaf.reshape(-1)[generator.integers(leaf.size)] = value
        hostile.append(leaf)
    return jax.tree.unflatten(structure, hostile)


@pytest.mark.parametrize("learn", [False, pytest.param(True, marks=pytest.mark.slow)])
@hypothesis.given(
    kind=st.sampled_from(["scaled", "random", "signs", "not finite"]),
    exponent=st.integers(-3, 30),
    seed=st.integers(0, 2**32 - 1),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
)
def test_parameters_stay_finite_and_a_quadratic_does_not_diverge(
    learn, kind, exponent, seed, value
):
    losses, finite, _ = _training(learn)(_hostile(kind, exponent, seed, value))

    assert finite
    # Steps within the rates' bounds may overshoot at first, before the backoff.
    assert np.max(losses) < 1e3 * losses[0]
    assert losses[-1] < 30.0 * losses[0]
