"""Sharded over devices and processes, training gives the numbers of one and moves no leaves."""

import os
import pathlib
import re
import subprocess
import sys

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


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("layout", _LAYOUTS)
@pytest.mark.parametrize("learn", [False, True])
def test_a_step_moves_nothing_between_devices_but_the_sample(axis_type, layout, learn):
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(axis_type,) * 2)
    tx = alphaopt.alphaopt(learn=learn)
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


def test_the_state_of_a_model_is_known_before_it_is_made_and_is_not_copied():
    tx, params = alphaopt.alphaopt(), jnp.ones((1000, 1000))
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
    assert memory.temp_size_in_bytes < 0.2 * params.nbytes


_PROCESS = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize("localhost:" + sys.argv[1], 2, int(sys.argv[2]))
from jax.experimental import multihost_utils
import numpy as np
from tests.optimizer import test_sharding
params, losses = test_sharding.train_sharded(learn=True)
if jax.process_index() == 0:
    np.savez(sys.argv[3], losses=losses, **params)
"""


def train_sharded(learn):
    """Parameters, flat by name, and losses of a training over eight devices, wherever they are."""
    tx = alphaopt.alphaopt(agent=None, learn=learn)
    mesh = _mesh(AxisType.Auto)
    with jax.set_mesh(mesh):
        start = jax.jit(training.init_params, out_shardings=_shardings(mesh))()
        params, _, losses = _train(tx, start)
        whole = jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))(
            params
        )
    flat, _ = jax.tree_util.tree_flatten_with_path(whole)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}, losses


@pytest.mark.slow
def test_two_processes_train_to_the_numbers_of_one(tmp_path):
    port, file = str(40000 + os.getpid() % 20000), tmp_path / "together.npz"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, port, str(rank), str(file)],
            stderr=subprocess.PIPE,
            text=True,
            cwd=pathlib.Path(__file__).parents[2],
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]

    expected, losses = train_sharded(learn=True)

    together = np.load(file)
    np.testing.assert_allclose(together["losses"], losses, rtol=1e-5)
    for name, leaf in expected.items():
        np.testing.assert_allclose(together[name], leaf, rtol=1e-4, atol=1e-6)
