"""The optimizers of Li & Malik as optax transformations."""

import jax
import jax.numpy as jnp
import optax
import pytest

from alphaopt_jax.baselines import li_malik
from tests.baselines.small_policies import policy_2016, policy_2017

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize(
        "tx",
        [li_malik.li_malik_2016(policy_2016()), li_malik.li_malik_2017(policy_2017())],
        ids=["2016", "2017"],
    ),
]


def test_chains_and_compiles_once(tx):
    tx = optax.chain(optax.clip_by_global_norm(1.0), tx, optax.scale(0.5))
    params = jnp.ones(3)
    traces = []

    @jax.jit
    def step(params, state):
        traces.append(None)
        loss, grads = jax.value_and_grad(optax.tree.norm)(params)
        updates, state = tx.update(grads, state, params, value=loss, ignored=0)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    shapes = jax.tree.map(jnp.shape, state)
    for _ in range(3):
        params, state = step(params, state)

    assert len(traces) == 1
    assert jax.tree.map(jnp.shape, state) == shapes
    assert int(optax.tree.get(state, "num_points")) == 3


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_updates_have_the_dtype_of_gradients_and_the_state_is_float32(tx, dtype):
    params = jnp.ones(3, dtype)

    updates, state = tx.update(params, tx.init(params), params, value=jnp.asarray(1.0, dtype))

    assert updates.dtype == dtype
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(state)}
    assert dtypes == {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}  # The number of points.


def test_missing_loss_raises(tx):
    state = tx.init(jnp.ones(3))

    with pytest.raises(ValueError, match=r"needs the loss.*value=loss"):
        tx.update(jnp.ones(3), state, jnp.ones(3))


def test_state_can_be_mapped_over(tx):
    state = tx.init(jnp.ones(3))

    mapped = optax.tree.map_params(tx, lambda leaf: leaf + 1.0, state)

    assert jax.tree.structure(mapped) == jax.tree.structure(state)
    assert int(optax.tree.get(mapped, "num_points")) == 0
