"""A saved and restored state is the same state: training goes on bit for bit."""

import functools

import flax.serialization
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

import alphaopt_jax as alphaopt
from tests import training


def _through_flax(tree, blank, folder):
    del folder
    return flax.serialization.from_bytes(blank, flax.serialization.to_bytes(tree))


def _through_orbax(tree, blank, folder):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "checkpoint", tree)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "checkpoint", blank)


@functools.cache
def _trained(learn):
    """The optimizer, parameters and state in the middle of a rollout, and the rest of training."""
    tx = alphaopt.alphaopt(agent=None, learn=learn)
    params, state, _ = training.train(tx, 13)
    return tx, params, state, training.train(tx, 20, params, state, first=13)


@pytest.mark.parametrize("through", [_through_flax, _through_orbax])
@pytest.mark.parametrize("learn", [True, False])
def test_training_goes_on_bit_for_bit(through, learn, tmp_path):
    tx, params, state, expected = _trained(learn)
    blank = jax.tree.map(np.zeros_like, jax.device_get((params, tx.init(params))))

    restored = through((params, state), blank, tmp_path)

    continued = training.train(tx, 20, *restored, first=13)
    jax.tree.map(np.testing.assert_array_equal, expected, continued)
