"""States written by another version: rejected with the difference; their parameters can be read."""

from typing import NamedTuple

from flax import serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import alphaopt_jax as alphaopt

pytestmark = pytest.mark.slow


_LAYOUT_BEFORE = {
    "rate_multipliers": "relative_rates",
    "constants": "limits",
    "history": "leaf_memory",
    "safeguards": "guard",
}
"""Field names of the layout before version 0.1."""


def _of_layout_before(state):
    """The same state with the field names of the layout before."""
    fields = {_LAYOUT_BEFORE.get(name, name): value for name, value in state._asdict().items()}
    return NamedTuple("AlphaOptState", [(name, object) for name in fields])(**fields)


def _older(state):
    """The state without its `safeguards`, and with a field that no longer exists."""
    fields = {name: value for name, value in state._asdict().items() if name != "safeguards"}
    older = NamedTuple("AlphaOptState", [(name, object) for name in (*fields, "forgotten")])
    return older(**fields, forgotten=jnp.zeros(3))


@pytest.fixture(name="trained", params=[False, True], ids=["frozen", "learning"])
def _trained(request):
    tx = alphaopt.alphaopt(learn=request.param)
    params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
    state = tx.init(params)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, state = tx.update(grads, state, params, value=jnp.float32(1.0))
    return tx, optax.apply_updates(params, updates), state


@pytest.mark.parametrize("field", ["safeguards", "forgotten"])
def test_orbax_names_the_field_that_differs(trained, field, tmp_path):
    tx, params, state = trained
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "old", (params, _older(state)))
    target = jax.eval_shape(lambda params: (params, tx.init(params)), params)

    with ocp.StandardCheckpointer() as checkpointer, pytest.raises(ValueError, match=field):
        checkpointer.restore(tmp_path / "old", target)


def test_flax_names_the_field_that_differs(trained):
    tx, params, state = trained
    content = serialization.to_bytes(_older(state))

    with pytest.raises(ValueError, match="safeguards"):
        serialization.from_bytes(tx.init(params), content)


def test_an_older_state_passed_to_update_is_rejected(trained):
    tx, params, state = trained

    with pytest.raises(ValueError, match="restored into such a state"):
        tx.update(jax.tree.map(jnp.ones_like, params), _older(state), params)


def test_training_continues_from_older_parameters_and_a_new_state(trained, tmp_path):
    tx, params, state = trained
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "old", (params, _older(state)))
    with ocp.StandardCheckpointer() as checkpointer:
        restored, _ = checkpointer.restore(tmp_path / "old")

    restored = jax.tree.map(jnp.asarray, restored)
    updates, new = tx.update(restored, tx.init(restored), restored, value=jnp.float32(1.0))

    jax.tree.map(np.testing.assert_array_equal, restored, params)
    assert int(new.updates_made) == 1
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(updates))


def test_a_state_of_the_layout_before_is_refused_with_the_names_that_differ(trained, tmp_path):
    tx, params, state = trained
    before = _of_layout_before(state)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "old", before)
    target = jax.eval_shape(tx.init, params)

    with ocp.StandardCheckpointer() as checkpointer, pytest.raises(ValueError, match="limits"):
        checkpointer.restore(tmp_path / "old", target)
    with pytest.raises(ValueError, match="rate_multipliers"):
        serialization.from_bytes(tx.init(params), serialization.to_bytes(before))
    with pytest.raises(ValueError, match="restored into such a state"):
        tx.update(jax.tree.map(jnp.ones_like, params), before, params)
