"""Explorers: who they are, and reaching them in leaves of any shape."""

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax import explorers

_sizes = st.lists(st.integers(0, 5000), min_size=1, max_size=6)


@given(sizes=_sizes, wanted=st.integers(1, 500))
def test_every_leaf_is_heard_and_none_has_more_explorers_than_parameters(sizes, wanted):
    counts = explorers.allocate(sizes, wanted)

    assert all(count <= size for count, size in zip(counts, sizes, strict=True))
    assert all((count > 0) == (size > 0) for count, size in zip(counts, sizes, strict=True))
    assert sum(counts) <= wanted + len(sizes)


def test_small_leaves_are_heard_beside_large_ones():
    assert explorers.allocate([10_000, 100], 110) == (100, 10)


@given(sizes=_sizes, seed=st.integers(0, 2**31 - 1))
def test_explorers_are_distinct_and_within_their_leaves(sizes, seed):
    counts = explorers.allocate(sizes, 100)

    positions = explorers.sample(jax.random.key(seed), sizes, counts)

    assert positions.dtype == jnp.int32
    for size, piece in zip(sizes, explorers.split(np.asarray(positions), counts), strict=True):
        assert len(np.unique(piece)) == len(piece)
        assert ((piece >= 0) & (piece < size)).all()


def test_every_parameter_explores_sooner_or_later():
    seen = {
        int(position)
        for seed in range(60)
        for position in explorers.sample(jax.random.key(seed), (20,), (5,))
    }

    assert seen == set(range(20))


def test_gather_and_add_reach_the_same_places_in_leaves_of_any_shape():
    leaves = [jnp.arange(24.0).reshape(2, 3, 4), jnp.zeros((0, 3)), jnp.array(7.0), jnp.arange(5.0)]
    counts = (3, 0, 1, 2)
    positions = jnp.array([0, 13, 23, 0, 1, 4], jnp.int32)

    gathered = explorers.gather(leaves, positions, counts)
    added = explorers.add(leaves, positions, jnp.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), counts)

    np.testing.assert_array_equal(gathered, [0.0, 13.0, 23.0, 7.0, 1.0, 4.0])
    np.testing.assert_array_equal(
        explorers.gather(added, positions, counts), [1.0, 15.0, 26.0, 11.0, 6.0, 10.0]
    )
    assert [leaf.shape for leaf in added] == [leaf.shape for leaf in leaves]
    assert sum(leaf.sum() for leaf in added) - sum(leaf.sum() for leaf in leaves) == 21.0


def test_no_leaves_at_all():
    assert explorers.allocate([], 10) == ()
    assert explorers.sample(jax.random.key(0), (), ()).shape == (0,)
    assert explorers.gather([], jnp.zeros((0,), jnp.int32), ()).shape == (0,)
