"""Trainings in rotated coordinates."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np
import optax
import pytest

import alphaopt_jax as alphaopt
from alphaopt_jax._agent import network
from alphaopt_jax.config import AgentConfig


@pytest.fixture(scope="module")
def agent():
    """An agent with one rate for each leaf, about four times the default; else at random."""
    config = AgentConfig(actor_hidden=0, leaf_hidden=4, max_log_rate=3.0, block_size=32)
    fresh = network.init_params(jax.random.key(0), network.make_network(config))
    leaves, structure = jax.tree.flatten(fresh)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    params = structure.unflatten(
        [0.1 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    )
    params["actor"]["leaf"]["log_rate"]["bias"] += 0.5
    return alphaopt.Agent(params, max_log_rate=3.0, inverse_sqrt_steps=30.0, block_size=32)


def _regression(key):
    """A linear regression whose inputs and outputs are badly scaled and mixed, and its loss."""
    mix_in, mix_out, truth, start = jax.random.split(key, 4)
    spread_in, spread_out = jnp.logspace(0, -2, 12), jnp.logspace(0, -1, 8)
    into = jnp.linalg.qr(jax.random.normal(mix_in, (12, 12)))[0] * spread_in
    out = jnp.linalg.qr(jax.random.normal(mix_out, (8, 8)))[0] * spread_out
    target = jax.random.normal(truth, (12, 8))
    params = {"w": jax.random.normal(start, (12, 8)), "b": jnp.ones(8)}

    def loss(params):
        error = into.T @ (params["w"] - target) @ out
        return jnp.sum(jnp.square(error)) + 1e-3 * jnp.sum(jnp.square(params["b"]))

    return params, loss


def _train(tx, params, loss, steps):
    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value)
        return (optax.apply_updates(params, updates), state), value

    (params, state), losses = jax.lax.scan(step, (params, tx.init(params)), None, steps)
    return params, state, losses


def test_mixed_inputs_are_as_easy_as_unmixed_ones(agent):
    """A regression on inputs whose principal components have standard deviations of 1 to 0.01."""
    mix_key, truth_key, key = jax.random.split(jax.random.key(3), 3)
    mixing = jnp.linalg.qr(jax.random.normal(mix_key, (16, 16)))[0] * jnp.logspace(0, -2, 16)
    truth = jax.random.normal(truth_key, (16, 4))

    def error(params, inputs):
        return jnp.mean(jnp.square(inputs @ (params - truth)))

    def reached(block_size):
        tx = alphaopt.alphaopt(
            agent=dataclasses.replace(agent, block_size=block_size), num_steps=3000
        )

        def step(carry, key):
            params, state = carry
            inputs = jax.random.normal(key, (16, 16)) @ mixing.T
            value, grads = jax.value_and_grad(error)(params, inputs)
            updates, state = tx.update(grads, state, params, value=value)
            return (optax.apply_updates(params, updates), state), None

        start = jnp.zeros((16, 4))
        (params, _), _ = jax.lax.scan(step, (start, tx.init(start)), jax.random.split(key, 3000))
        return float(error(params, mixing.T))

    assert reached(32) < 0.01 * reached(0)


@pytest.mark.parametrize("learn", [False, True])
def test_the_agent_is_read_back_and_an_episode_begins_anew(agent, learn):
    params, loss = _regression(jax.random.key(2))
    tx = alphaopt.alphaopt(agent=agent, learn=learn)
    _, state, losses = _train(tx, params, loss, 40)

    found = alphaopt.agent_from_state(state)
    assert found.block_size == 32
    assert found.config == agent.config
    assert (found == agent) != learn
    assert losses[-1] < losses[0]
    rates = alphaopt.learning_rates(state, params)
    assert jax.tree.map(jnp.shape, rates) == jax.tree.map(jnp.shape, params)
    assert all(bool(jnp.all(leaf > 0)) for leaf in jax.tree.leaves(rates))

    again = alphaopt.new_episode(state)
    fresh = tx.init(params)
    for field in ("bases", "gradient_average", "average", "history"):
        jax.tree.map(np.testing.assert_array_equal, getattr(again, field), getattr(fresh, field))


def test_one_rate_for_each_leaf_needs_no_multipliers(agent):
    frozen = alphaopt.alphaopt(agent=agent, num_steps=10).init(jnp.ones((512, 512)))
    learning = alphaopt.alphaopt(agent=agent, num_steps=10, learn=True).init(jnp.ones((64, 64)))

    assert frozen.rate_multipliers is None
    assert learning.rate_multipliers.shape == (64, 64)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(frozen))
    assert size <= 9.3 * 512 * 512  # 13.3 with an average.


def test_a_skipped_step_changes_no_basis(agent):
    params, loss = _regression(jax.random.key(2))
    tx = alphaopt.alphaopt(agent=agent)
    params, state, _ = _train(tx, params, loss, 20)
    spoiled = jax.tree.map(lambda leaf: leaf * jnp.nan, params)

    updates, after = tx.update(spoiled, state, params, value=1.0)

    for field in ("bases", "gradient_average", "average"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, field), getattr(state, field))
    assert all(bool(jnp.all(leaf == 0)) for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize("moment_dtype", ["float32", "bfloat16"])
def test_bases_follow_moments_of_both_types(agent, moment_dtype):
    params, loss = _regression(jax.random.key(2))
    config = alphaopt.AlphaOptConfig(moment_dtype=moment_dtype)
    tx = alphaopt.alphaopt(agent=agent, num_steps=200, config=config)

    reached, state, _ = _train(tx, params, loss, 200)

    assert jax.tree.leaves(state.gradient_average)[0].dtype == moment_dtype
    assert float(loss(reached)) < 0.02 * float(loss(params))


def test_weight_decay_is_in_the_parameters_own_coordinates(agent):
    """Without a gradient, decay shrinks every parameter by one factor."""
    params = jax.random.normal(jax.random.key(0), (6, 5))
    tx = alphaopt.alphaopt(agent=agent, weight_decay=0.5)
    state = tx.init(params)
    for number in range(20):  # Bases turn.
        grads = jax.random.normal(jax.random.key(number), (6, 5))
        _, state = tx.update(grads, state, params)
    state = state._replace(gradient_average=jnp.zeros((6, 5)))

    updates, state = tx.update(jnp.zeros((6, 5)), state, params)

    np.testing.assert_allclose(updates, -0.5 * state.leaf_rates[0] * params, rtol=1e-4)


def test_members_of_a_vmap_train_as_each_alone(agent):
    params, loss = _regression(jax.random.key(2))
    tx = alphaopt.alphaopt(agent=agent, num_steps=40)
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, 1.1 * leaf]), params)

    together = jax.vmap(lambda params: _train(tx, params, loss, 40)[2])(several)
    alone = _train(tx, params, loss, 40)[2]

    np.testing.assert_allclose(together[0][:3], alone[:3], rtol=1e-4)
    # Rounding grows, on some processors to 2e-3 within 20 steps.
    np.testing.assert_allclose(together[0][:20], alone[:20], rtol=1e-2)
    np.testing.assert_allclose(together[0], alone, rtol=3e-2)


def test_complex_leaves_scalars_and_empty_leaves_train(agent):
    params = {
        "complex": jnp.ones((3, 4), jnp.complex64),
        "scalar": jnp.ones(()),
        "empty": jnp.zeros((0, 3)),
        "long": jnp.ones(100),
        "half": jnp.ones((8, 8), jnp.bfloat16),
    }

    def loss(params):
        leaves = (jnp.sum(jnp.square(jnp.abs(leaf - 0.3))) for leaf in jax.tree.leaves(params))
        return sum(leaf.astype(jnp.float32) for leaf in leaves)

    tx = alphaopt.alphaopt(agent=agent, num_steps=60)
    state, start = tx.init(params), float(loss(params))
    for _ in range(60):
        grads = jax.tree.map(jnp.conj, jax.grad(loss)(params))
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    assert jax.tree.map(lambda leaf: leaf.dtype, updates) == jax.tree.map(
        lambda leaf: leaf.dtype, grads
    )
    assert float(loss(params)) < 0.2 * start


def test_coordinates_can_be_chosen_for_any_agent(agent):
    params = {"kernel": jnp.ones((40, 8)), "bias": jnp.zeros(8)}

    own = alphaopt.alphaopt(agent=agent, coordinates="parameters").init(params)
    rotated = alphaopt.alphaopt(agent=None, coordinates="rotated").init(params)

    assert own.bases is None
    assert own.constants.block_size == 0
    assert [basis.shape[1] for basis in rotated.bases.bases] == [2, 4, 8, 16, 32, 64]


def test_optax_tells_the_trees_of_the_state_that_are_shaped_like_parameters(agent):
    params = {"kernel": jnp.ones((40, 8)), "bias": jnp.zeros(8)}
    for num_steps in (None, 100):
        tx = alphaopt.alphaopt(agent=agent, num_steps=num_steps)
        state = tx.init(params)

        named = optax.tree.map_params(
            tx,
            lambda leaf, name: name,
            state,
            {"kernel": "k", "bias": "b"},
            transform_non_params=lambda leaf: None,
        )

        assert named.gradient_average == {"kernel": "k", "bias": "b"}
        assert jax.tree.leaves(named.bases) == []


_COLLECTIVE = re.compile(
    r"= (?P<shapes>.*?) (?P<name>all-gather|all-to-all|all-reduce|collective-permute|"
    r"reduce-scatter|collective-broadcast|ragged-all-to-all)(-start)?\("
)
_LAYOUTS = {
    "fully sharded": PartitionSpec(("data", "model"), None),
    "tensor parallel": PartitionSpec("model", "data"),
    "by columns": PartitionSpec(None, "model"),
}


@pytest.mark.parametrize(
    ("layout", "axis_type"),
    [
        pytest.param(*case, marks=[] if case[0] == "tensor parallel" else [pytest.mark.nightly])
        for case in itertools.product(_LAYOUTS, [AxisType.Auto, AxisType.Explicit])
    ],
)
def test_second_moments_are_summed_and_leaves_stay_where_they_are(agent, layout, axis_type):
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(axis_type,) * 2)
    tx, size = alphaopt.alphaopt(agent=agent), 512
    with jax.set_mesh(mesh):
        params = jax.device_put(jnp.ones((size, size)), NamedSharding(mesh, _LAYOUTS[layout]))
        state = tx.init(params)

        def step(params, state, grads):
            updates, state = tx.update(grads, state, params, value=1.0)
            return optax.apply_updates(params, updates), state

        compiled = jax.jit(step).lower(params, state, params).compile()
        after, _ = step(params, state, params)

    for each in _COLLECTIVE.finditer(compiled.as_text()):
        shapes = re.findall(r"\w+\[([\d,]*)\]", each["shapes"])
        moved = sum(np.prod([int(n) for n in shape.split(",") if n]) for shape in shapes)
        assert moved <= 32 * size, each[0]  # The blocks of one side; a leaf is 16 times as much.
    assert after.sharding.is_equivalent_to(params.sharding, 2)


def test_states_with_other_rotated_coordinates_are_refused(agent):
    tx = alphaopt.alphaopt(agent=agent, num_steps=10)
    own = alphaopt.alphaopt(agent=agent, num_steps=10, coordinates="parameters")
    params = {"w": jnp.ones((12, 8)), "b": jnp.ones(8)}
    state, other = tx.init(params), tx.init({"w": jnp.ones((12, 8)), "v": jnp.ones((8, 8))})

    # As of a version with other blocks.
    older = state._replace(bases=other.bases)

    for optimizer, stored in ((tx, older), (own, state), (tx, own.init(params))):
        with pytest.raises(ValueError, match="other rotated coordinates than these parameters"):
            optimizer.update(params, stored, params, value=jnp.ones(()))
