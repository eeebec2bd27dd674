"""Leaves of one shape, stacked."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from alphaopt_jax._agent import stacks as stacks_lib

_SHAPES = [(2, 3), (3,), (2, 3), (), (3,), (80, 80), (80, 80)]


@pytest.fixture(name="leaves")
def _leaves():
    return [jnp.full(shape, float(index)) for index, shape in enumerate(_SHAPES)]


def _stacks(kinds=None):
    return stacks_lib.of_leaves(_SHAPES, kinds or ["float32"] * len(_SHAPES))


def test_small_leaves_of_a_shape_are_stacked_and_large_ones_are_not():
    assert _stacks().members == ((0, 2), (1, 4), (3,), (5,), (6,))


@pytest.mark.parametrize("other", ["bfloat16", None])
def test_leaves_of_a_shape_are_stacked_only_if_all_are_of_one_kind(other):
    kinds = ["float32"] * len(_SHAPES)
    kinds[2] = other

    assert _stacks(kinds).members == ((0,), (1, 4), (2,), (3,), (5,), (6,))


def test_unstack_undoes_stack(leaves):
    stacks = _stacks()

    stacked = stacks_lib.stack(stacks, leaves)
    found = stacks_lib.unstack(stacks, stacked, [jnp.asarray(0), jnp.asarray(1)])

    assert [each.shape for each in stacked][:3] == [(2, 2, 3), (2, 3), ()]
    chex.assert_trees_all_equal(found, leaves)


def test_results_come_in_the_order_of_the_leaves(leaves):
    stacks = _stacks()
    stacked = stacks_lib.stack(stacks, leaves)

    largest = stacks_lib.collect(stacks, [jnp.max] * len(stacked), stacked)

    np.testing.assert_array_equal(largest, np.arange(len(_SHAPES)))


def test_values_of_leaves_are_spread_over_stacks_as_functions_of_a_leaf_take_them(leaves):
    stacks = _stacks()
    stacked = stacks_lib.stack(stacks, leaves)
    values = stacks_lib.spread(stacks, {"own": jnp.arange(len(_SHAPES), dtype=jnp.float32)})

    difference = stacks_lib.for_each(
        stacks, [lambda leaf, value: leaf - value["own"]] * len(stacked), stacked, values
    )

    assert [each.shape for each in difference] == [each.shape for each in stacked]
    assert all(np.all(np.asarray(each) == 0.0) for each in difference)


def test_static_values_of_stacks_go_to_all_members():
    found = stacks_lib.per_leaf(_stacks(), np.array([6, 3, 1, 6_400, 6_400]))

    assert found.tolist() == [6, 3, 6, 1, 3, 6_400, 6_400]
