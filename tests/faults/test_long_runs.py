"""A million steps neither drift nor overflow; memory is constant over ten thousand steps."""

import functools
import gc
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import alphaopt_jax as alphaopt
from alphaopt_jax._agent import statistics

pytestmark = pytest.mark.slow

_PARAMS = {"w": jnp.array([1.0, -2.0, 3.0])}
_CURVATURES = jnp.array([0.1, 1.0, 10.0])
_FLOOR = 1e-2
_STATM = pathlib.Path("/proc/self/statm")


def _loss(params, noise):
    """A quadratic with its minimum at 0.5 plus noise."""
    return _FLOOR + jnp.sum(_CURVATURES * jnp.square(params["w"] - 0.5 + noise))


def _noise(number):
    return 0.1 * jax.random.normal(jax.random.fold_in(jax.random.key(0), number), (3,))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _train(tx, state, num_steps):
    """Final parameters and state; each step's noisy loss, true loss and gradients."""

    def step(carry, number):
        params, state = carry
        value, grads = jax.value_and_grad(_loss)(params, _noise(number))
        updates, state = tx.update(grads, state, params, value=value)
        return (optax.apply_updates(params, updates), state), (
            value,
            _loss(params, 0.0),
            grads,
        )

    (params, state), seen = jax.lax.scan(step, (_PARAMS, state), jnp.arange(num_steps))
    return params, state, seen


def _averaged(values, decay):
    """Moving average from zero, in double precision, over the last 4,000 values."""
    values = np.asarray(values[-4000:], np.float64)
    weights = (1.0 - decay) * decay ** np.arange(len(values))[::-1]
    return np.tensordot(weights, values, axes=1)


def _all_finite(tree):
    return all(
        bool(jnp.all(jnp.isfinite(leaf)))
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    )


_BFLOAT16 = alphaopt.AlphaOptConfig(moment_dtype="bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keywords", "num_steps", "accuracy"),
    [
        ({}, 1_000_000, 1e-5),
        # Stochastic rounding to 8 bits.
        ({"config": _BFLOAT16}, 50_000, 0.03),
        ({"learn": True}, 20_000, 1e-5),
    ],
    ids=["frozen", "bfloat16", "learning"],
)
def test_long_runs_do_not_drift(keywords, num_steps, accuracy):
    # Its moments are compared with sums of gradients, in the parameters' coordinates.
    tx = alphaopt.alphaopt(coordinates="parameters", **keywords)
    params, state, (values, losses, grads) = _train(tx, tx.init(_PARAMS), num_steps)

    assert _all_finite((params, state, values))
    # Counters are exact, also those in float32.
    assert state.updates_made == num_steps
    assert state.updates_skipped == 0
    assert state.safeguards.losses == num_steps
    assert state.history.loss.observed == num_steps
    # Averages equal those computed in double precision.
    config = alphaopt.AlphaOptConfig()
    scale = float(jnp.sqrt(jnp.mean(jnp.square(grads["w"][-4000:]))))
    np.testing.assert_allclose(
        np.asarray(state.gradient_average["w"], np.float64),
        _averaged(grads["w"], config.gradient_decay),
        atol=accuracy * scale,
    )
    np.testing.assert_allclose(
        np.asarray(state.squared_gradient_average["w"], np.float64),
        _averaged(np.square(grads["w"], dtype=np.float64), config.squared_gradient_decay),
        rtol=2.0 * accuracy,
    )
    for found, decay in (
        (state.history.loss.fast, 0.9),
        (state.history.loss.medium, 0.97),
        (state.history.loss.slow, 0.99),
    ):
        np.testing.assert_allclose(found, _averaged(values, decay), rtol=1e-5)
    # The loss is near its minimum, and no higher than after a tenth of the steps.
    window = num_steps // 100
    early = float(jnp.mean(losses[num_steps // 10 - window : num_steps // 10])) - _FLOOR
    late = float(jnp.mean(losses[-window:])) - _FLOOR
    assert late <= early < 0.01 * (float(losses[0]) - _FLOOR)
    if "learn" in keywords:
        assert (
            state.learner.rounds == num_steps // alphaopt.AlphaOptConfig().learning.rollout_length
        )


@pytest.mark.parametrize("step", [1, 2, 10, 100, 1000, 1_000_000, 2**24, 2**31 - 1])
def test_bias_corrections_are_right_at_any_step(step):
    config = alphaopt.AlphaOptConfig()
    corrections = statistics.bias_corrections(jnp.asarray(step).astype(jnp.float32), config)

    expected = [
        1.0 / (1.0 - decay**step)
        for decay in (config.gradient_decay, config.squared_gradient_decay)
    ]
    np.testing.assert_allclose(corrections, expected, rtol=1e-5)
    if step >= 10_000:
        np.testing.assert_array_equal(corrections, 1.0)


@pytest.mark.parametrize("counted", [2**24 - 50, 2**31 - 1000], ids=["float32", "int32"])
def test_counters_at_the_end_of_their_range_do_no_harm(counted):
    tx = alphaopt.alphaopt()
    _, begun, _ = _train(tx, tx.init(_PARAMS), 100)
    late = begun._replace(
        updates_made=jnp.asarray(counted, jnp.int32),
        safeguards=begun.safeguards._replace(losses=jnp.asarray(counted, jnp.float32)),
        history=begun.history._replace(
            loss=begun.history.loss._replace(observed=jnp.asarray(counted, jnp.float32))
        ),
    )

    _, state, (_, losses, _) = _train(tx, late, 100)

    assert _all_finite(state)
    assert state.updates_made == counted + 100
    assert state.history.loss.observed in (2**24, np.float32(counted))
    # Rates are small this late; the loss still falls.
    assert losses[-1] < losses[0]


def _resident_bytes():
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("learn", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_memory_does_not_grow_over_ten_thousand_steps(learn):
    tx = alphaopt.alphaopt(learn=learn)
    update = jax.jit(tx.update)
    value_and_grad = jax.jit(jax.value_and_grad(_loss))

    def train(params, state, num_steps):
        for _ in range(num_steps):
            value, grads = value_and_grad(params, 0.0)
            updates, state = update(grads, state, params, value=value)
            params = optax.apply_updates(params, updates)
        gc.collect()
        return params, state

    params, state = train(_PARAMS, tx.init(_PARAMS), 500)
    arrays = len(jax.live_arrays())
    resident = _resident_bytes() if _STATM.exists() else 0

    params, state = train(params, state, 10_000)

    assert len(jax.live_arrays()) <= arrays
    assert state.updates_made == 10_500
    # Keeping one state per step would take ten times as much.
    if _STATM.exists():
        assert _resident_bytes() - resident < 2**24
    assert update._cache_size() == 1
