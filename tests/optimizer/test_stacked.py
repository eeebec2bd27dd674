"""Leaves that are computed together take the steps that they take alone."""

from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import alphaopt_jax as alphaopt
from alphaopt_jax._agent import stacks

_SHAPES = [(12, 8), (8,), (12, 8), (3, 4, 8), (8,), (), (12, 8), ()]


def _params(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), len(_SHAPES))
    return [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, _SHAPES, strict=True)]


def _loss(params, key):
    targets = jax.random.normal(key, (len(params),))
    each = zip(params, targets, strict=True)
    return sum(jnp.sum(jnp.square((1 + n) * leaf - t)) for n, (leaf, t) in enumerate(each))


def _train(tx, params, steps=40):
    @jax.jit
    def step(carry, key):
        params, state = carry
        loss, grads = jax.value_and_grad(_loss)(params, key)
        updates, state = tx.update(grads, state, params, value=loss)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(1), steps)
    return jax.lax.scan(step, (params, tx.init(params)), keys)[0]


def _assert_close(found, expected):
    """Relative to the largest number: rotations mix small numbers with large ones."""
    largest = jnp.max(jnp.abs(expected))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * largest)


@pytest.mark.parametrize(
    "make",
    [
        lambda: alphaopt.alphaopt(num_steps=100),
        lambda: alphaopt.alphaopt(),
        lambda: alphaopt.alphaopt(coordinates="parameters"),
        lambda: alphaopt.alphaopt(weight_decay=0.1, num_steps=100),
        lambda: alphaopt.alphaopt(learn=True),
    ],
    ids=["horizon", "no horizon", "own coordinates", "decay", "learning"],
)
def test_stacked_leaves_take_the_steps_that_they_take_alone(make):
    stacked, unstacked = make(), make()

    def step(carry, key):
        """Both steps from the same state, since a training amplifies rounding."""
        params, state = carry
        loss, grads = jax.value_and_grad(_loss)(params, key)
        together = stacked.update(grads, state, params, value=loss)
        with mock.patch.object(stacks, "_MAX_SIZE", 0):
            alone = unstacked.update(grads, state, params, value=loss)
        updates, state = alone
        return (optax.apply_updates(params, updates), state), (together, alone)

    keys = jax.random.split(jax.random.key(1), 40)
    _, (together, alone) = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))(
        (_params(), unstacked.init(_params()))
    )

    (updates, state), (updates_alone, state_alone) = together, alone
    jax.tree.map(_assert_close, updates, updates_alone)
    for name in ("gradient_average", "squared_gradient_average", "average", "leaf_rates"):
        found, expected = getattr(state, name), getattr(state_alone, name)
        jax.tree.map(_assert_close, found, expected)
    if state.bases is not None:
        moments, moments_alone = state.bases.moments, state_alone.bases.moments
        chex.assert_trees_all_close(moments, moments_alone, rtol=1e-3, atol=1e-4)


def test_leaves_of_one_shape_but_of_several_types_are_not_stacked():
    params = _params()
    params[2] = params[2].astype(jnp.bfloat16)

    after, _ = _train(alphaopt.alphaopt(num_steps=100), params)

    assert [leaf.dtype for leaf in after] == [leaf.dtype for leaf in params]
    assert float(_loss(after, jax.random.key(2))) < float(_loss(params, jax.random.key(2)))


def test_more_layers_of_the_same_shapes_add_little_to_the_program():
    def size(layers):
        params = [jnp.ones((16, 16)), jnp.ones(16)] * layers
        tx = alphaopt.alphaopt(num_steps=100)
        state = tx.init(params)
        lowered = jax.jit(lambda p, s: tx.update(p, s, p, value=1.0)).lower(params, state)
        return lowered.as_text().count("\n")

    few, more, many = size(2), size(4), size(24)

    # A leaf that is computed alone has 120 lines and more.
    assert many - few < 40 * 44
    assert more - few < 40 * 4


def test_a_skipped_step_changes_no_member_of_a_stack():
    tx, params = alphaopt.alphaopt(num_steps=100), _params()
    _, state = _train(tx, params, steps=3)
    grads = [*jax.tree.map(jnp.ones_like, params)]
    grads[2] = grads[2].at[0, 0].set(jnp.nan)

    updates, after = tx.update(grads, state, params, value=1.0)

    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
    chex.assert_trees_all_equal(after.gradient_average, state.gradient_average)
    chex.assert_trees_all_equal(after.squared_gradient_average, state.squared_gradient_average)
