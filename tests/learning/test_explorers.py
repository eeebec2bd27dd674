"""Explorers: who they are, and reaching them in leaves of any shape."""

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax._learning import explorers

_sizes = st.lists(st.integers(0, 5000), min_size=1, max_size=6)


@given(sizes=_sizes, wanted=st.integers(1, 500))
def test_every_leaf_is_heard_and_none_has_more_explorers_than_parameters(sizes, wanted):
    counts = explorers.allocate(sizes, sizes, wanted)

    assert all(count <= size for count, size in zip(counts, sizes, strict=True))
    assert all((count > 0) == (size > 0) for count, size in zip(counts, sizes, strict=True))
    assert sum(counts) <= wanted + len(sizes)


def test_small_leaves_are_heard_beside_large_ones():
    assert explorers.allocate([10_000, 100], [10_000, 100], 110) == (100, 10)


def test_no_leaf_has_more_explorers_than_are_available():
    assert explorers.allocate([10_000, 100], [64, 100], 110) == (64, 10)


@given(sizes=_sizes, seed=st.integers(0, 2**31 - 1))
def test_explorers_are_distinct_and_within_their_leaves(sizes, seed):
    counts = explorers.allocate(sizes, sizes, 100)

    positions = explorers.draw(jax.random.key(seed), sizes, counts)

    assert positions.dtype == jnp.int32
    pieces = np.split(np.asarray(positions), np.cumsum(counts)[:-1])
    for size, piece in zip(sizes, pieces, strict=True):
        assert len(np.unique(piece)) == len(piece)
        assert ((piece >= 0) & (piece < size)).all()


def test_every_parameter_explores_sooner_or_later():
    seen = {
        int(position)
        for seed in range(60)
        for position in explorers.draw(jax.random.key(seed), (20,), (5,))
    }

    assert seen == set(range(20))


def test_explorers_take_what_is_theirs_of_what_every_leaf_offers():
    values = jnp.array([[0.0, 1.0, 2.0], [10.0, 11.0, 12.0], [20.0, 21.0, 22.0]])

    taken = explorers.take(values, jnp.array([0, 2, 1]), (2, 0, 1))

    np.testing.assert_array_equal(taken, [0.0, 2.0, 21.0])


def test_no_leaves_at_all():
    assert explorers.allocate([], [], 10) == ()
    assert explorers.draw(jax.random.key(0), (), ()).shape == (0,)
