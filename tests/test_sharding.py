"""Sharded over eight devices, training gives the numbers of one device and keeps its sharding."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np
import optax
import pytest

import alphaopt_jax as alphaopt
from tests import training

_SPECS = {
    "hidden": {"kernel": PartitionSpec(None, "x"), "bias": PartitionSpec("x")},
    "output": {"kernel": PartitionSpec("x", None)},
}
_STEPS = 20  # Two rounds of learning and some.


def _mesh(axis_type):
    return jax.make_mesh((8,), ("x",), axis_types=(axis_type,))


def _shardings(mesh):
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        _SPECS,
        is_leaf=lambda node: isinstance(node, PartitionSpec),
    )


def _parameter_shaped(state):
    return (state.gradient_average, state.squared_gradient_average, state.relative_rates)


def _loss(params, number):
    """Element by element, since explicit sharding asks of a contraction what it becomes."""
    target = jnp.sin(0.7 * number)
    return sum(jnp.mean(jnp.square(leaf - target)) for leaf in jax.tree.leaves(params))


def _train(tx, params):
    state = jax.jit(tx.init)(params)

    @jax.jit
    def step(params, state, number):
        value, grads = jax.value_and_grad(_loss)(params, number)
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for number in range(_STEPS):
        params, state, loss = step(params, state, jnp.float32(number))
        losses.append(loss)
    return params, state, np.array(jax.device_get(losses))


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("learn", [True, False])
def test_same_numbers_and_sharding_as_the_parameters(axis_type, learn):
    assert jax.device_count() == 8  # conftest.py forces them.
    tx = alphaopt.alphaopt(agent=None, learn=learn)
    expected_params, _, expected_losses = _train(tx, training.init_params())

    mesh = _mesh(axis_type)
    shardings = _shardings(mesh)
    with jax.set_mesh(mesh):
        params, state, losses = _train(tx, jax.device_put(training.init_params(), shardings))

    np.testing.assert_allclose(losses, expected_losses, rtol=1e-3)
    jax.tree.map(
        lambda found, expected: np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-4),
        jax.device_get(params),
        jax.device_get(expected_params),
    )
    for tree in (params, *_parameter_shaped(state)):
        jax.tree.map(_assert_sharded_like, tree, shardings)


def _assert_sharded_like(leaf, sharding):
    assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim), (leaf.sharding, sharding)
