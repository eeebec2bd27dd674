"""Rotated coordinates: blocks, bases, and turning to them and back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alphaopt_jax._agent import orthogonal, rotation

_SHAPES = [(784, 10), (33, 70), (3, 3, 5, 8), (2, 3, 4), (7,), (100,), (), (0, 4), (1, 20), (9, 1)]


def _functions(arrays):
    return [functools.partial(jnp.asarray, array) for array in arrays]


def _random_bases(blocks):
    """Bases that are not the identity; coordinates of the padding stay by themselves."""
    bases = rotation.init(blocks)
    grads = [
        jax.random.normal(jax.random.key(number), shape)
        for number, shape in enumerate(blocks.shapes)
    ]
    updated = rotation.add_gradients(
        blocks, bases, _functions(grads), jnp.float32(1001.0), blocks.starts
    )
    return rotation.refreshed(blocks, updated, jnp.float32(1001.0))


def test_turning_there_and_back_changes_nothing():
    blocks = rotation.of_shapes(_SHAPES, 32)
    bases = _random_bases(blocks)
    leaves = [
        jax.random.normal(jax.random.key(10 + number), shape)
        for number, shape in enumerate(_SHAPES)
    ]

    turned = rotation.rotate(blocks, bases, leaves, blocks.starts)
    back = rotation.rotate_back(blocks, bases, turned, blocks.starts)

    for leaf, there, here, sides in zip(leaves, turned, back, blocks.sides, strict=True):
        assert there.shape == here.shape == leaf.shape
        np.testing.assert_allclose(here, leaf, atol=2e-5)
        if leaf.size:
            np.testing.assert_allclose(jnp.sum(there**2), jnp.sum(leaf**2), rtol=1e-5)
        assert bool(sides) == (leaf.size > 1 and bool(jnp.max(jnp.abs(there - leaf)) > 1e-3))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((64, 32), [(0, 2, 32), (1, 1, 32)]),
        ((33, 70), [(0, 2, 17), (1, 3, 24)]),  # No divisor: a little padding.
        ((3, 3, 5, 8), [(0, 2, 23), (1, 1, 8)]),  # 45 rows in blocks of 23.
        ((50_000, 64), [(1, 2, 32)]),  # A vocabulary keeps its own coordinates.
        ((20, 1), [(0, 1, 20)]),
        ((32,), [(1, 1, 32)]),
        ((33,), []),
        ((), []),
        ((1, 1), []),
    ],
)
def test_blocks_of_a_shape(shape, expected):
    blocks = rotation.of_shapes([shape], 32)
    assert [(side.axis, side.blocks, side.width) for side in blocks.sides[0]] == expected


@pytest.mark.parametrize("width", [1, 2, 16, 32, 128])
def test_columns_are_made_orthonormal_as_by_qr(width):
    # Well enough conditioned for a comparison of two algorithms in single precision.
    matrices = jax.random.normal(jax.random.key(width), (3, width, width)) + 3.0 * jnp.eye(width)

    found = jax.jit(orthogonal.orthonormal)(matrices)

    expected, upper = np.linalg.qr(np.asarray(matrices, np.float64))
    expected = expected * np.sign(np.diagonal(upper, axis1=1, axis2=2))[:, None, :]
    np.testing.assert_allclose(found, expected, atol=5e-4)
    identity = jnp.swapaxes(found, 1, 2) @ found
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(width), identity.shape), atol=3e-6)


@pytest.mark.parametrize("width", [32, 128])
def test_nearly_singular_matrices_give_orthonormal_columns(width):
    thin = jax.random.normal(jax.random.key(0), (2, width, 3))
    matrices = thin @ jnp.swapaxes(thin, 1, 2) + 1e-6 * width * jnp.eye(width)

    found = orthogonal.orthonormal(matrices)

    identity = jnp.swapaxes(found, 1, 2) @ found
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(width), identity.shape), atol=1e-5)


def test_bases_become_those_of_the_gradients_second_moments():
    """Gradients A X B with independent X are uncorrelated in the eigenbases of AA' and B'B."""
    shape = (12, 8)
    blocks = rotation.of_shapes([shape], 32)
    left = jax.random.normal(jax.random.key(0), (12, 12)) * jnp.logspace(0, -1.5, 12)
    right = jnp.logspace(0, -1.5, 8)[:, None] * jax.random.normal(jax.random.key(1), (8, 8))

    def step(bases, numbered):
        number, key = numbered
        grad = left @ jax.random.normal(key, shape) @ right
        bases = rotation.add_gradients(blocks, bases, _functions([grad]), number, blocks.starts)
        return rotation.refreshed(blocks, bases, number), None

    keys = jax.random.split(jax.random.key(2), 300)
    bases, _ = jax.lax.scan(
        step, rotation.init(blocks), (jnp.arange(1.0, 301.0, dtype=jnp.float32), keys)
    )

    def largest_correlation(basis, matrix):
        turned = basis.T @ matrix @ basis
        spread = jnp.sqrt(jnp.diagonal(turned))
        return jnp.max(jnp.abs(turned / jnp.outer(spread, spread) - jnp.eye(len(turned))))

    for side in blocks.sides[0]:
        basis = bases.bases[side.group][side.start, : side.width, : side.width]
        truth = left @ left.T if side.axis == 0 else right.T @ right
        assert largest_correlation(jnp.eye(side.width), truth) > 0.5
        # The moments are averages over 20 steps.
        assert largest_correlation(basis, truth) < 0.45
        own = bases.moments[side.group][side.start, : side.width, : side.width]
        assert largest_correlation(basis, own) < 0.1


def test_blocks_that_see_many_gradients_in_a_step_later_add_those_of_every_fourth():
    blocks = rotation.of_shapes([(200, 8)], 32)
    rows, columns = blocks.sides[0]  # Each sees 8 and 200 gradients in a step.
    assert (rows.interval, columns.interval) == (1, 4)
    grads = jax.random.normal(jax.random.key(0), (9, 200, 8))
    per_step = jnp.einsum("nab,nac->nbc", grads, grads) / 200.0
    part = grads[:, : rows.width]

    def add(bases, grad, number):
        return rotation.add_gradients(
            blocks, bases, _functions([grad]), jnp.float32(number), blocks.starts
        )

    def own(bases, side):
        return bases.moments[side.group][side.start, : side.width, : side.width]

    early = rotation.init(blocks)
    for number, grad in enumerate(grads):
        early = add(early, grad, number + 1)
    between, due = add(early, grads[0], 100), add(early, grads[0], 101)

    mean = jnp.mean(per_step, axis=0)
    np.testing.assert_allclose(own(early, columns), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(own(between, columns), own(early, columns))
    # The window has twenty steps; one stands for four.
    later = mean + 0.2 * (per_step[0] - mean)
    np.testing.assert_allclose(own(due, columns), later, rtol=1e-4, atol=1e-5)
    every = jnp.einsum("nab,ncb->nac", part, part) / 8.0
    mean = jnp.mean(every, axis=0)
    np.testing.assert_allclose(own(early, rows), mean, rtol=1e-4, atol=1e-5)
    later = mean + 0.05 * (every[0] - mean)
    np.testing.assert_allclose(own(between, rows), later, rtol=1e-4, atol=1e-5)


def test_a_basis_is_trusted_once_it_has_seen_as_many_gradients_as_it_has_coordinates():
    blocks = rotation.of_shapes([(6,), (6, 3)], 32)  # Three gradients a step for the matrix.
    bases = rotation.init(blocks)
    turned_at = {}
    for number in range(1, 8):
        grads = [
            jax.random.normal(jax.random.key(100 * number + leaf), shape)
            for leaf, shape in enumerate(blocks.shapes)
        ]
        bases = rotation.add_gradients(
            blocks, bases, _functions(grads), jnp.float32(number), blocks.starts
        )
        bases = rotation.refreshed(blocks, bases, jnp.float32(number))
        for leaf in (0, 1):
            side = blocks.sides[leaf][0]
            basis = bases.bases[side.group][side.start]
            if not np.allclose(basis, np.eye(len(basis))):
                turned_at.setdefault(leaf, number)
    assert turned_at == {0: 6, 1: 2}
