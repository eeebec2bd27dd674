"""The sample that stands for a leaf: which parameters it has, and reaching them."""

from hypothesis import given
from hypothesis import strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from alphaopt_jax._agent import sampling as sampling_lib


@given(sizes=st.lists(st.integers(0, 20_000), min_size=1, max_size=6))
def test_a_sample_is_of_distinct_parameters_and_whole_where_a_leaf_is_small(sizes):
    sampling = sampling_lib.of_shapes([(size,) for size in sizes])

    for size, count, row in zip(sizes, sampling.counts, sampling.positions, strict=True):
        positions = row[:count]
        assert len(np.unique(positions)) == count
        assert ((positions >= 0) & (positions < max(size, 1))).all()
        assert count == min(size, sampling.positions.shape[1]) or count >= 128
        if count == size:
            np.testing.assert_array_equal(positions, np.arange(size))


@pytest.mark.parametrize(("leaves", "most"), [(1, 4096), (8, 2048), (300, 128)])
def test_the_sample_of_a_model_of_many_leaves_stays_small(leaves, most):
    sampling = sampling_lib.of_shapes([(1000, 1000)] * leaves)

    assert sampling.counts == (most,) * leaves


def test_every_row_and_column_of_a_matrix_is_sampled_alike():
    sampling = sampling_lib.of_shapes([(1024, 1024)])

    for index in np.unravel_index(sampling.positions[0], (1024, 1024)):
        drawn = np.bincount(index // 64, minlength=16)
        np.testing.assert_allclose(drawn, 256, atol=26)


def test_means_of_a_sample_are_those_of_the_leaf():
    leaf = jnp.square(jnp.asarray(np.random.default_rng(0).normal(size=(300, 1000)), jnp.float32))
    leaf = leaf * jnp.linspace(0.0, 2.0, 1000)
    small = jnp.array([[1.0, 4.0], [2.0, 5.0]])
    sampling = sampling_lib.of_shapes([leaf.shape, small.shape, (0, 3), ()])

    (found,) = sampling.means(
        [sampling_lib.read([leaf, small, jnp.zeros((0, 3)), jnp.asarray(7.0)], sampling)]
    )

    np.testing.assert_allclose(found[0], leaf.mean(), rtol=0.06)  # Two standard deviations.
    np.testing.assert_allclose(found[1:], [3.0, 0.0, 7.0], rtol=1e-6)


def test_what_is_written_is_read_in_the_same_places_of_leaves_of_any_shape():
    leaves = [
        jnp.arange(24.0).reshape(2, 3, 4),
        jnp.zeros((0, 3)),
        jnp.array(7.0),
        jnp.zeros(5, jnp.float16),
        jnp.zeros((100, 300)),
    ]
    sampling = sampling_lib.of_shapes([leaf.shape for leaf in leaves])
    which, counts = jnp.array([0, 13, 23, 0, 1, 4, 5, 3000]), (3, 0, 1, 2, 2)

    written = sampling_lib.write(leaves, which, 1.0 + jnp.arange(8.0), counts, sampling)

    read = sampling_lib.read(written, sampling)
    leaf_of = np.repeat(np.arange(5), counts)
    np.testing.assert_array_equal(read[leaf_of, which], 1.0 + np.arange(8.0))
    for new, old, count in zip(written, leaves, counts, strict=True):
        assert (new.shape, new.dtype) == (old.shape, old.dtype)
        assert np.sum(np.asarray(new) != np.asarray(old)) == count
