"""Sharded over devices, training gives the numbers of one device and moves no leaves."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np
import optax
import pytest

import alphaopt_jax as alphaopt
from tests import sharded_training, training


def _parameter_shaped(state):
    return (state.gradient_average, state.squared_gradient_average, state.rate_multipliers)


@functools.cache
def _trained_on_one_device(learn):
    """Parameters and losses."""
    tx = alphaopt.alphaopt(agent=None, learn=learn)
    params, _, losses = sharded_training.train(tx, training.init_params())
    return jax.device_get(params), losses


@pytest.mark.parametrize(
    ("learn", "axis_type"),
    [
        (True, AxisType.Auto),
        (False, AxisType.Explicit),
        pytest.param(True, AxisType.Explicit, marks=pytest.mark.nightly),
        pytest.param(False, AxisType.Auto, marks=pytest.mark.nightly),
    ],
)
def test_same_numbers_and_sharding_as_the_parameters(learn, axis_type):
    assert jax.device_count() == 8  # conftest.py forces them.
    expected_params, expected_losses = _trained_on_one_device(learn)

    tx = alphaopt.alphaopt(agent=None, learn=learn)
    mesh = sharded_training.make_mesh(axis_type)
    shardings = sharded_training.shardings(mesh)
    with jax.set_mesh(mesh):
        params, state, losses = sharded_training.train(
            tx, jax.device_put(training.init_params(), shardings)
        )

    np.testing.assert_allclose(losses, expected_losses, rtol=1e-3)
    jax.tree.map(
        lambda found, expected: np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-4),
        jax.device_get(params),
        expected_params,
    )
    for tree in (params, *_parameter_shaped(state)):
        jax.tree.map(_assert_sharded_like, tree, shardings)


def _assert_sharded_like(leaf, sharding):
    assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim), (leaf.sharding, sharding)


_LAYOUTS = {
    "fully sharded": {
        "embedding": PartitionSpec(("data", "model")),
        "query": PartitionSpec(("data", "model")),
        "value": PartitionSpec(("data", "model")),
        "bias": PartitionSpec(("data", "model")),
    },
    "tensor parallel": {
        "embedding": PartitionSpec("model", None),
        "query": PartitionSpec(None, "model"),
        "value": PartitionSpec("model", "data"),
        "bias": PartitionSpec("model"),
    },
}
_SHAPES = {"embedding": (4096, 64), "query": (256, 256), "value": (256, 256), "bias": (512,)}
_COLLECTIVE = re.compile(
    r"= (?P<shapes>.*?) (?P<name>all-gather|all-to-all|all-reduce|collective-permute|"
    r"reduce-scatter|collective-broadcast|ragged-all-to-all)(-start)?\("
)


# Every pair of values; the other combinations are nightly.
_EVERY_PAIR = {
    ("fully sharded", AxisType.Auto, False),
    ("fully sharded", AxisType.Explicit, True),
    ("tensor parallel", AxisType.Auto, True),
    ("tensor parallel", AxisType.Explicit, False),
}


@pytest.mark.parametrize(
    ("layout", "axis_type", "learn"),
    [
        pytest.param(*case, marks=[] if case in _EVERY_PAIR else [pytest.mark.nightly])
        for case in itertools.product(_LAYOUTS, [AxisType.Auto, AxisType.Explicit], [False, True])
    ],
)
def test_a_step_moves_nothing_between_devices_but_the_sample(layout, axis_type, learn):
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(axis_type,) * 2)
    # What moves in rotated coordinates is tested in test_rotated.py.
    tx = alphaopt.alphaopt(learn=learn, coordinates="parameters")
    with jax.set_mesh(mesh):
        params = {
            name: jax.device_put(jnp.ones(_SHAPES[name]), NamedSharding(mesh, spec))
            for name, spec in _LAYOUTS[layout].items()
        }
        state = tx.init(params)

        def step(params, state, grads):
            updates, state = tx.update(grads, state, params, value=1.0)
            return optax.apply_updates(params, updates), state

        compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()

    sampled = 4096 * len(_SHAPES)
    found = list(_COLLECTIVE.finditer(compiled.as_text()))
    assert {each["name"] for each in found} == {"all-reduce"}
    for each in found:
        shapes = re.findall(r"\w+\[([\d,]*)\]", each["shapes"])
        moved = sum(np.prod([int(n) for n in shape.split(",") if n]) for shape in shapes)
        # Of parameters and of gradients. A leaf would be as much again.
        assert moved <= 2 * sampled, each[0]


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("num_steps", "coordinates", "copies"),
    # XLA copies donated parameters that two results are made from: their average and themselves.
    # Rotated coordinates need the gradient there and the step back.
    [(100, "parameters", 0.2), (None, "parameters", 1.1), (100, "rotated", 3.3)],
)
def test_the_state_of_a_model_is_known_before_it_is_made_and_is_not_copied(
    num_steps, coordinates, copies
):
    tx = alphaopt.alphaopt(num_steps=num_steps, coordinates=coordinates)
    params = jnp.ones((1000, 1000))
    abstract, state = jax.eval_shape(tx.init, params), tx.init(params)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), abstract) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params, value=1.0)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()

    memory = compiled.memory_analysis()
    given = sum(leaf.nbytes for leaf in jax.tree.leaves((params, state)))
    assert memory.alias_size_in_bytes >= given
    assert memory.temp_size_in_bytes < copies * params.nbytes
