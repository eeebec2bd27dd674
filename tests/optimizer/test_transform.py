"""The transformation: what its updates are made of, what it refuses, and where it can be put."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import alphaopt_jax
from alphaopt_jax import AgentConfig, AlphaOptConfig, LearningConfig
from alphaopt_jax._optimizer import coordinate_rates
from tests import quadratic

alphaopt = functools.partial(alphaopt_jax.alphaopt, agent=None)

_CONFIG = AlphaOptConfig()
_FLOAT16_RATES = 2e-3  # The relative error that keeping relative rates in float16 may cause.


def _assert_equal(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def _assert_close(tree, other, **tolerance):
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), tree, other)


# Optimizers that several tests share, so that each is traced and compiled once.
_LEARNING = alphaopt(config=AlphaOptConfig(learning=LearningConfig(rollout_length=2)))
_LONGER_ROLLOUT = alphaopt(
    config=AlphaOptConfig(refresh_interval=4, learning=LearningConfig(rollout_length=4))
)
_WITHOUT_LEARNING = alphaopt(learn=False)


@pytest.fixture(scope="module")
def frozen(decided_agent):
    return alphaopt(agent=decided_agent)


@pytest.fixture(scope="module")
def learning(decided_agent):
    return alphaopt(agent=decided_agent, learn=True)


# What an update is.


@pytest.mark.parametrize("learn", [True, False])
def test_update_is_minus_the_learning_rates_times_the_direction(frozen, learning, learn):
    *_, (updates, params, state) = quadratic.steps(learning if learn else frozen, num_steps=3)

    def direction(first, second):
        number = 3
        first = first / (1.0 - _CONFIG.gradient_decay**number)
        second = second / (1.0 - _CONFIG.squared_gradient_decay**number)
        return first / (jnp.sqrt(second) + _CONFIG.epsilon)

    directions = jax.tree.map(direction, state.gradient_average, state.squared_gradient_average)
    rates = alphaopt_jax.learning_rates(state, params)
    expected = jax.tree.map(lambda rate, direction: -rate * direction, rates, directions)
    _assert_close(updates, expected, rtol=1e-4)
    assert all(np.std(np.log(rate)) > 1e-3 for rate in jax.tree.leaves(rates))


def test_rates_of_a_fresh_agent_are_relative_to_the_scale_of_the_leaf():
    _, state = quadratic.run(_WITHOUT_LEARNING, num_steps=1)

    rates = alphaopt_jax.learning_rates(state, quadratic.init_params())

    for name, leaf in quadratic.init_params().items():
        scale = np.sqrt(np.mean(np.square(leaf)))
        np.testing.assert_allclose(rates[name], _CONFIG.relative_step * scale, rtol=1e-5)


@pytest.mark.parametrize("too_large", [10.0, 1e6])
def test_rates_much_too_large_are_bounded(too_large):
    params = jnp.array([3.0, -4.0])
    with pytest.warns(UserWarning, match=r"values above 1\.67 have the effect of 1\.67"):
        tx = alphaopt(too_large, learn=False)

    updates, _ = tx.update(jnp.ones(2), tx.init(params), params)

    step = -min(too_large * _CONFIG.relative_step, _CONFIG.max_relative_step) * np.sqrt(12.5)
    np.testing.assert_allclose(updates, step, rtol=1e-5)


def test_direction_may_be_the_raw_gradient():
    config = AlphaOptConfig(agent=AgentConfig(update_direction="gradient"))
    params, grads = quadratic.init_params(), jax.grad(quadratic.loss)(quadratic.init_params())
    tx = alphaopt(learn=False, config=config)

    updates, state = tx.update(grads, tx.init(params), params)

    rates = alphaopt_jax.learning_rates(state, params)
    _assert_close(updates, jax.tree.map(lambda rate, grad: -rate * grad, rates, grads), rtol=1e-5)


def test_scale_by_alphaopt_and_a_sign_is_alphaopt(decided_agent, frozen):
    chained = optax.chain(alphaopt_jax.scale_by_alphaopt(agent=decided_agent), optax.scale(-1.0))

    params, _ = quadratic.run(chained)

    _assert_close(params, quadratic.run(frozen)[0], rtol=1e-6)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("mask", "decays"),
    [
        (None, {"b": True, "w": True}),
        ({"b": False, "w": True}, {"b": False, "w": True}),
        (False, {"b": False, "w": False}),
        (lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params), {"b": False, "w": True}),
    ],
)
def test_weight_decay_is_multiplied_by_the_rates_and_obeys_the_mask(
    decided_agent, frozen, mask, decays
):
    params, grads = quadratic.init_params(), jax.grad(quadratic.loss)(quadratic.init_params())
    decaying = alphaopt(agent=decided_agent, weight_decay=0.1, mask=mask)

    without, state = frozen.update(grads, frozen.init(params), params)
    updates, _ = decaying.update(grads, decaying.init(params), params)

    rates = alphaopt_jax.learning_rates(state, params)
    for name in params:
        decay = -0.1 * rates[name] * params[name] * decays[name]
        np.testing.assert_allclose(updates[name], without[name] + decay, rtol=1e-5)


@pytest.mark.unchecked
def test_schedule_gives_the_learning_rate_of_each_step():
    def schedule(count):
        return 1.0 / (count + 1.0)

    scheduled, params = alphaopt(schedule, learn=False), quadratic.init_params()
    state = scheduled.init(params)
    for number in range(3):
        grads = jax.grad(quadratic.loss)(params)
        expected, _ = alphaopt(schedule(number), learn=False).update(grads, state, params)
        updates, state = scheduled.update(grads, state, params)
        _assert_close(updates, expected, rtol=1e-6)
        params = optax.apply_updates(params, updates)


def test_metrics_are_finite_scalars_of_the_last_step():
    params, state = quadratic.run(_LEARNING, num_steps=4)

    metrics = jax.jit(alphaopt_jax.metrics)(state)

    assert set(metrics) == {
        "mean_learning_rate", "mean_log_rate", "updates_made", "updates_skipped",
        "skipped_in_a_row", "backoff", "reward", "policy_loss", "value_loss", "rounds",
        "mean_level",
    }  # fmt: skip
    assert all(leaf.shape == () and np.isfinite(leaf) for leaf in metrics.values())
    assert (metrics["updates_made"], metrics["updates_skipped"], metrics["rounds"]) == (4, 0, 2)
    rates = jax.tree.leaves(alphaopt_jax.learning_rates(state, params))
    mean = np.mean(np.concatenate([np.ravel(rate) for rate in rates]))
    np.testing.assert_allclose(metrics["mean_learning_rate"], mean, rtol=1e-5)


def test_new_episode_keeps_what_was_learned_and_forgets_the_training():
    params, state = quadratic.run(_LEARNING, num_steps=3)

    new = jax.jit(alphaopt_jax.new_episode)(state)

    _assert_equal(new.agent, state.agent)
    _assert_equal(new.learner.agent_optimizer, state.learner.agent_optimizer)
    _assert_equal(new.learner.key_data, state.learner.key_data)
    assert new.updates_made == 0
    fresh = _LEARNING.init(params)
    forgotten = ("gradient_average", "squared_gradient_average", "rate_multipliers", "history")
    for name in forgotten:
        _assert_equal(getattr(new, name), getattr(fresh, name))
    _assert_equal(new.learner.rollout, fresh.learner.rollout)


# Refreshes of the rate multipliers, held in between.


def test_multipliers_are_refreshed_at_the_first_steps_and_then_at_intervals(decided_agent):
    tx = alphaopt(agent=decided_agent, config=AlphaOptConfig(refresh_interval=3))
    kept = [
        np.concatenate([np.ravel(each) for each in state.rate_multipliers.values()])
        for _, _, state in quadratic.steps(tx, num_steps=9)
    ]

    refreshed = [not np.array_equal(new, old) for old, new in itertools.pairwise(kept)]
    # At steps 1, 2 and 3, and then at steps 4 and 7, counted from 1.
    assert refreshed == [True, True, True, False, False, True, False, False]


def test_a_leaf_without_a_part_of_its_own_decides_as_its_parameters_do_on_average(decided_agent):
    """Between two refreshes all parameters then follow the decisions for their leaf."""
    tx = alphaopt(agent=decided_agent, config=AlphaOptConfig(refresh_interval=4))
    _, refreshed = quadratic.run(tx, num_steps=5)
    params, later = quadratic.run(tx, num_steps=7)

    assert not decided_agent.network.leaf_hidden
    for factors, at_refresh in zip(
        later.rate_multipliers.values(), refreshed.rate_multipliers.values(), strict=True
    ):
        np.testing.assert_array_equal(factors, at_refresh)
        logs = np.log(np.asarray(factors, np.float32))
        np.testing.assert_allclose(logs.mean(), 0.0, atol=1e-3)
        assert np.abs(logs).max() > 1e-2
    assert (later.leaf_log_rates != refreshed.leaf_log_rates).all()
    rates = alphaopt_jax.learning_rates(later, params)
    for name, leaf_rate in zip(rates, later.leaf_rates, strict=True):
        geometric_mean = np.exp(np.log(np.asarray(rates[name])).mean())
        np.testing.assert_allclose(geometric_mean, leaf_rate, rtol=1e-3)


def test_nobody_explores_at_the_last_step_of_a_rollout():
    _, state = quadratic.run(_LONGER_ROLLOUT, num_steps=4)

    rollout = state.learner.rollout
    np.testing.assert_array_equal(rollout.actions[-1], rollout.means[-1])
    assert (rollout.actions[:-1] != rollout.means[:-1]).all()
    # A fresh agent means all rates to be those of their leaves; no noise is left in them.
    for leaf in jax.tree.leaves(state.rate_multipliers):
        np.testing.assert_array_equal(leaf, 1.0)


def test_an_explorers_rate_is_its_leafs_times_its_own_factor():
    params, state = quadratic.run(_LONGER_ROLLOUT, num_steps=2)

    rates = alphaopt_jax.learning_rates(state, params)
    actions = state.learner.rollout.actions[1]
    found = np.log(np.concatenate([np.ravel(rates[name]) for name in ("b", "w")]))
    scales = np.repeat(np.log(np.asarray(state.leaf_rates)), [3, 6])
    np.testing.assert_allclose(found - scales, actions, atol=1e-3)


@pytest.mark.parametrize("learn", [True, False])
def test_moments_in_half_precision_take_half_and_train_as_well(
    decided_agent, frozen, learning, learn
):
    config = AlphaOptConfig(moment_dtype="bfloat16")
    params, state = quadratic.run(
        alphaopt(agent=decided_agent, learn=learn, config=config), num_steps=60
    )
    expected, _ = quadratic.run(learning if learn else frozen, num_steps=60)

    for tree in (state.gradient_average, state.squared_gradient_average):
        assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(tree))
    assert quadratic.loss(params) < 0.8 * quadratic.loss(quadratic.init_params())
    np.testing.assert_allclose(quadratic.loss(params), quadratic.loss(expected), rtol=0.2)


def test_leaves_that_are_looked_at_together_are_decided_as_if_each_were_alone(
    decided_agent, monkeypatch
):
    """Stacked where they are alike, or copied into rows where they are small."""
    start = {
        "a": jnp.ones((3, 2)),
        "b": jnp.linspace(0.0, 2.0, 300),  # Of more than one row.
        "c": 2.0 * jnp.ones((3, 2)),
        "d": jnp.float32(1.5),
        "e": jnp.zeros((0, 3)),
    }
    targets = {"a": 3.0, "b": -1.0, "c": 0.5, "d": 0.0, "e": 0.0}

    def loss(params):
        parts = jax.tree.map(lambda leaf, aim: jnp.sum(jnp.square(leaf - aim)), params, targets)
        return parts["a"] + 0.05 * parts["b"] + 0.1 * parts["c"] + parts["d"] + parts["e"]

    alone, _ = quadratic.run(alphaopt(agent=decided_agent), 3, start, loss)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    for small in (0, 1000):
        monkeypatch.setattr(coordinate_rates, "_SMALL", small)
        together, _ = quadratic.run(alphaopt(agent=decided_agent), 3, start, loss)

        _assert_close(together, alone, rtol=1e-5)


# What does not matter to it.


def test_order_of_the_coordinates_does_not_matter(frozen):
    params = jax.random.normal(jax.random.key(0), (50,))
    slopes = jnp.geomspace(0.01, 100.0, 50)
    order = jax.random.permutation(jax.random.key(1), 50)

    def run(params, slopes):
        return quadratic.run(frozen, 5, params, lambda x: jnp.sum(slopes * jnp.square(x - 1.0)))[0]

    found, permuted = run(params, slopes), run(params[order], slopes[order])

    np.testing.assert_allclose(
        permuted - params[order], (found - params)[order], rtol=_FLOAT16_RATES, atol=1e-6
    )


@pytest.mark.parametrize("scale", [1e-4, 1024.0])
def test_scale_of_the_loss_does_not_matter(frozen, scale):
    ends = []
    for factor in (1.0, scale):
        params, _ = quadratic.run(frozen, 5, loss=functools.partial(quadratic.loss, scale=factor))
        ends.append(jax.tree.map(lambda end, start: end - start, params, quadratic.init_params()))

    _assert_close(ends[1], ends[0], rtol=_FLOAT16_RATES, atol=1e-6)


def test_a_step_without_a_loss_learns_too_and_the_loss_is_only_observed():
    params, state = quadratic.init_params(), _LEARNING.init(quadratic.init_params())
    update = jax.jit(_LEARNING.update)
    for _ in range(4):
        updates, state = update(jax.grad(quadratic.loss)(params), state, params)
        params = optax.apply_updates(params, updates)

    assert state.learner.rounds == 2
    assert state.learner.loss_given == 0
    assert state.history.loss.observed == 0
    assert any(
        np.any(leaf)
        for leaf in jax.tree.leaves(alphaopt_jax.agent_from_state(state).params["actor"]["output"])
    )
    assert quadratic.loss(params) < quadratic.loss(quadratic.init_params())


def test_a_model_without_parameters_is_left_alone():
    tx = alphaopt()

    updates, state = jax.jit(tx.update)({}, tx.init({}), {}, value=1.0)

    assert updates == {}
    assert state.updates_made == 1


# Steps that are skipped.


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("spoiled", "value"),
    [(jnp.nan, 1.0), (jnp.inf, 1.0), (-jnp.inf, 1.0), (0.5, jnp.nan), (0.5, jnp.inf)],
)
@pytest.mark.parametrize("steps_before", [0, 1, 3])
def test_a_step_that_is_not_finite_changes_nothing(spoiled, value, steps_before):
    update = jax.jit(_LEARNING.update)
    params, state = quadratic.init_params(), _LEARNING.init(quadratic.init_params())
    if steps_before:
        params, state = quadratic.run(_LEARNING, steps_before)
    loss, good = jax.jit(jax.value_and_grad(quadratic.loss))(params)
    bad = good | {"w": good["w"].at[1, 0].set(spoiled)}

    updates, after = update(bad, state, params, value=jnp.float32(value))

    assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))
    assert (after.updates_skipped, after.skipped_in_a_row) == (1, 1)
    counts = {"updates_skipped": 0, "skipped_in_a_row": 0}
    _assert_equal(after._replace(**counts), state._replace(**counts))
    # Training goes on as if nothing had been.
    updates, state = update(good, state, params, value=loss)
    updates_after, after = update(good, after, params, value=loss)
    _assert_equal(updates_after, updates)
    _assert_equal(after._replace(updates_skipped=state.updates_skipped), state)


@pytest.mark.unchecked
def test_a_training_that_skips_step_after_step_says_so(frozen):
    params = quadratic.init_params()
    bad = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)

    def step(state, _):
        return frozen.update(bad, state, params)[1], None

    state = jax.lax.scan(step, frozen.init(params), None, length=99)[0]
    assert alphaopt_jax.metrics(state)["skipped_in_a_row"] == 99
    _, state = frozen.update(bad, state, params)

    with pytest.warns(UserWarning, match="skipped the last 100 steps.*jax_debug_nans"):
        assert alphaopt_jax.metrics(state)["skipped_in_a_row"] == 100
    with pytest.warns(UserWarning, match="skipped the last 100 steps"):
        frozen.update(bad, jax.block_until_ready(state), params)
    jax.jit(alphaopt_jax.metrics)(state)  # Nothing can be said while it is traced.


# What is refused.


def test_missing_parameters_are_asked_for():
    tx = alphaopt()
    with pytest.raises(ValueError, match=r"needs the current parameters.*update\(grads, state, p"):
        tx.update(quadratic.init_params(), tx.init(quadratic.init_params()))


def test_state_of_another_optimizer_is_refused():
    state = optax.adam(1e-3).init(quadratic.init_params())
    with pytest.raises(ValueError, match=r"state of another optimizer, a tuple"):
        alphaopt().update(quadratic.init_params(), state, quadratic.init_params())
    with pytest.raises(ValueError, match=r"holds one AlphaOptState, found 0"):
        alphaopt_jax.metrics(state)


def test_state_of_another_alphaopt_is_refused():
    state = alphaopt(learn=False).init(quadratic.init_params())
    with pytest.raises(ValueError, match="differ in whether the agent learns"):
        alphaopt().update(quadratic.init_params(), state, quadratic.init_params())


def test_parameters_of_other_shapes_than_the_gradients_are_refused():
    tx, params = alphaopt(learn=False), quadratic.init_params()
    other = params | {"b": jnp.ones(4)}
    with pytest.raises(ValueError, match=r"The parameters and the gradients have.*\(4,\)"):
        tx.update(params, tx.init(params), other)
    with pytest.raises(ValueError, match=r"The optimizer state and the gradients.*Initialize"):
        tx.update(other, tx.init(params), other)


@pytest.mark.parametrize("mask", [{"b": True, "v": False}, {"b": True}, [True, False, True]])
def test_a_mask_that_does_not_fit_is_refused(mask):
    tx = alphaopt(learn=False, weight_decay=0.1, mask=mask)
    with pytest.raises(ValueError, match=r"`mask` must be a pytree of booleans like the param"):
        tx.update(
            quadratic.init_params(), tx.init(quadratic.init_params()), quadratic.init_params()
        )


def test_rates_fall_to_a_known_horizon_and_with_the_root_of_time_to_an_unknown_one():
    silent = jax.tree.map(jnp.zeros_like, dict(alphaopt_jax.load_agent("base").params))
    agent = alphaopt_jax.Agent(silent, inverse_sqrt_steps=4.0)
    params, grads = jnp.ones(3), jnp.array([1.0, -1.0, 2.0])

    def rates(steps, **arguments):
        tx = alphaopt(agent=agent, **arguments)
        state, found = tx.init(params), []
        for _ in range(steps):
            _, state = tx.update(grads, state, params)
            found.append(alphaopt_jax.learning_rates(state, params)[0])
        return np.array(found) / found[0]

    planned = np.array([0, 1, 2, 3, 3])
    expected = (1.0 - planned / 4.0) / np.sqrt(1.0 + planned / 1000.0)
    np.testing.assert_allclose(rates(5, num_steps=4), expected, rtol=1e-5)
    expected = 1.0 / np.sqrt(1.0 + np.arange(6) / 4.0)
    np.testing.assert_allclose(rates(6), expected, rtol=1e-5)
    agent = dataclasses.replace(agent, inverse_sqrt_steps=math.inf)
    np.testing.assert_allclose(rates(6), np.ones(6), rtol=1e-6)


@pytest.mark.parametrize("num_steps", [0, -3])
def test_a_number_of_steps_below_one_is_refused(num_steps):
    with pytest.raises(ValueError, match=f"`num_steps` is the planned number.*{num_steps}"):
        alphaopt(num_steps=num_steps)


# Inside `jit`.


@pytest.mark.unchecked
def test_a_training_compiles_once_and_gives_up_its_buffers():
    traces = []

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        traces.append(None)
        return quadratic.make_step(_LEARNING)(params, state)

    params, state = quadratic.init_params(), _LEARNING.init(quadratic.init_params())
    for _ in range(5):
        old = (params, state)
        params, state = step(params, state)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))

    assert len(traces) == 1
    assert step._cache_size() == 1
    assert state.learner.rounds == 2


def test_donating_the_state_leaves_the_agent_given_alone(decided_agent):
    tx = alphaopt(agent=decided_agent)
    state = tx.init(quadratic.init_params())
    jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)(state)

    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(decided_agent.params))


def test_training_under_scan_and_vmap_over_seeds_equals_steps_of_each_seed():
    config, start = (
        AlphaOptConfig(learning=LearningConfig(rollout_length=2)),
        quadratic.init_params(),
    )

    def train(seed):
        tx = alphaopt(seed=seed, config=config)
        (params, state), _ = jax.lax.scan(
            lambda carry, _: (quadratic.make_step(tx)(*carry), None),
            (start, tx.init(start)),
            length=5,
        )
        return params, alphaopt_jax.learning_rates(state, params)

    params, rates = jax.jit(jax.vmap(train))(jnp.arange(3))

    first, second, third = (
        jax.tree.map(lambda leaf, seed=seed: leaf[seed], (params, rates)) for seed in range(3)
    )
    expected, state = quadratic.run(alphaopt(seed=1, config=config), 5)
    expected = (expected, alphaopt_jax.learning_rates(state, expected))
    _assert_close(second, expected, rtol=_FLOAT16_RATES)
    for rate, other in zip(jax.tree.leaves(first[1]), jax.tree.leaves(third[1]), strict=True):
        assert not np.allclose(rate, other, rtol=1e-3)


def test_keys_of_both_kinds_are_seeds():
    states = [
        alphaopt(seed=seed).init(jnp.zeros(2))
        for seed in (5, np.int64(5), jnp.asarray(5.0), jax.random.key(5), jax.random.PRNGKey(5))
    ]

    for state in states[1:]:
        _assert_equal(state, states[0])


@pytest.mark.parametrize("learn", [True, False])
def test_ten_million_parameters_take_a_step(learn):
    params = jnp.ones((2500, 4000))
    tx = alphaopt(learn=learn)

    updates, state = jax.jit(tx.update)(params, jax.jit(tx.init)(params), params, value=1.0)

    assert np.all(np.isfinite(updates))
    assert np.any(updates)
    assert state.updates_made == 1
