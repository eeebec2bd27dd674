"""The transformation: what its updates are made of, what it refuses, and where it can be put."""

import dataclasses
import functools
import itertools
import math

from flax import linen as nn
from flax import nnx
from flax.training import train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import alphaopt_jax
from alphaopt_jax import AlphaOptConfig
from alphaopt_jax._optimizer import coordinate_rates

alphaopt = functools.partial(alphaopt_jax.alphaopt, agent=None)

_CONFIG = AlphaOptConfig()
_FLOAT16_RATES = 2e-3  # The relative error that keeping relative rates in float16 may cause.


def _params():
    return {"b": jnp.array([0.5, -1.0, 2.0]), "w": jnp.arange(1.0, 7.0).reshape(3, 2)}


def _loss(params, scale=1.0):
    target = {"b": 3.0, "w": -1.0}
    parts = jax.tree.map(lambda leaf, aim: jnp.sum(jnp.square(leaf - aim)), params, target)
    return scale * (parts["b"] + 5.0 * parts["w"])


def _step_of(tx, loss=_loss):
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state

    return step


def _run(tx, steps=3, params=None, loss=_loss):
    """Parameters and state after some steps."""
    params = _params() if params is None else params
    step = jax.jit(_step_of(tx, loss))
    state = jax.jit(tx.init)(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def _assert_equal(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def _assert_close(tree, other, **tolerance):
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), tree, other)


@pytest.fixture(scope="module")
def learning_update():
    """The jitted update of an optimizer whose agent learns at every second step."""
    tx = alphaopt(config=AlphaOptConfig(rollout_length=2))
    return tx.init, jax.jit(lambda grads, state, params, value: tx.update(
        grads, state, params, value=value))  # fmt: skip


# What an update is.


@pytest.mark.parametrize("learn", [True, False])
def test_update_is_minus_the_learning_rates_times_the_direction(decided_agent, learn):
    tx = alphaopt(agent=decided_agent, learn=learn)
    params, state = _run(tx, steps=2)
    updates, state = jax.jit(tx.update)(jax.grad(_loss)(params), state, params)

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
    _, state = _run(alphaopt(learn=False), steps=1)

    rates = alphaopt_jax.learning_rates(state, _params())

    for name, leaf in _params().items():
        scale = np.sqrt(np.mean(np.square(leaf)))
        np.testing.assert_allclose(rates[name], _CONFIG.relative_step * scale, rtol=1e-5)


@pytest.mark.parametrize("too_large", [10.0, 1e6])
def test_rates_much_too_large_are_bounded(too_large):
    params = jnp.array([3.0, -4.0])
    tx = alphaopt(too_large, learn=False)

    updates, _ = tx.update(jnp.ones(2), tx.init(params), params)

    step = -min(too_large * _CONFIG.relative_step, _CONFIG.max_relative_step) * np.sqrt(12.5)
    np.testing.assert_allclose(updates, step, rtol=1e-5)


def test_direction_may_be_the_raw_gradient():
    config = AlphaOptConfig(direction="gradient")
    params, grads = _params(), jax.grad(_loss)(_params())
    tx = alphaopt(learn=False, config=config)

    updates, state = tx.update(grads, tx.init(params), params)

    rates = alphaopt_jax.learning_rates(state, params)
    _assert_close(updates, jax.tree.map(lambda rate, grad: -rate * grad, rates, grads), rtol=1e-5)


def test_scale_by_alphaopt_and_a_sign_is_alphaopt(decided_agent):
    chained = optax.chain(alphaopt_jax.scale_by_alphaopt(agent=decided_agent), optax.scale(-1.0))

    params, _ = _run(chained)

    _assert_close(params, _run(alphaopt(agent=decided_agent))[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("mask", "decays"),
    [
        (None, {"b": True, "w": True}),
        ({"b": False, "w": True}, {"b": False, "w": True}),
        (False, {"b": False, "w": False}),
        (lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params), {"b": False, "w": True}),
    ],
)
def test_weight_decay_is_multiplied_by_the_rates_and_obeys_the_mask(decided_agent, mask, decays):
    params, grads = _params(), jax.grad(_loss)(_params())
    plain = alphaopt(agent=decided_agent)
    decaying = alphaopt(agent=decided_agent, weight_decay=0.1, mask=mask)

    without, state = plain.update(grads, plain.init(params), params)
    updates, _ = decaying.update(grads, decaying.init(params), params)

    rates = alphaopt_jax.learning_rates(state, params)
    for name in params:
        decay = -0.1 * rates[name] * params[name] * decays[name]
        np.testing.assert_allclose(updates[name], without[name] + decay, rtol=1e-5)


def test_schedule_gives_the_learning_rate_of_each_step():
    def schedule(count):
        return 1.0 / (count + 1.0)

    scheduled, params = alphaopt(schedule, learn=False), _params()
    state = scheduled.init(params)
    for number in range(3):
        grads = jax.grad(_loss)(params)
        expected, _ = alphaopt(schedule(number), learn=False).update(grads, state, params)
        updates, state = scheduled.update(grads, state, params)
        _assert_close(updates, expected, rtol=1e-6)
        params = optax.apply_updates(params, updates)


def test_metrics_are_finite_scalars_of_the_last_step():
    tx = alphaopt(config=AlphaOptConfig(rollout_length=2))
    params, state = _run(tx, steps=4)

    metrics = jax.jit(alphaopt_jax.metrics)(state)

    assert set(metrics) == {
        "mean_learning_rate", "mean_log_rate", "updates_made", "updates_skipped", "brake",
        "reward", "policy_loss", "value_loss", "rounds",
    }  # fmt: skip
    assert all(leaf.shape == () and np.isfinite(leaf) for leaf in metrics.values())
    assert (metrics["updates_made"], metrics["updates_skipped"], metrics["rounds"]) == (4, 0, 2)
    rates = jax.tree.leaves(alphaopt_jax.learning_rates(state, params))
    mean = np.mean(np.concatenate([np.ravel(rate) for rate in rates]))
    np.testing.assert_allclose(metrics["mean_learning_rate"], mean, rtol=1e-5)


def test_new_episode_keeps_what_was_learned_and_forgets_the_training(learning_update):
    init, update = learning_update
    params, state = _params(), init(_params())
    for _ in range(3):
        _, state = update(jax.grad(_loss)(params), state, params, 2.0)

    new = jax.jit(alphaopt_jax.new_episode)(state)

    _assert_equal(new.agent, state.agent)
    _assert_equal(new.learner.agent_optimizer, state.learner.agent_optimizer)
    _assert_equal(new.learner.key_data, state.learner.key_data)
    assert new.updates_made == 0
    fresh = init(params)
    forgotten = ("gradient_average", "squared_gradient_average", "relative_rates", "loss_history")
    for name in forgotten:
        _assert_equal(getattr(new, name), getattr(fresh, name))
    _assert_equal(new.learner.rollout, fresh.learner.rollout)


# When it looks at every parameter, and what it keeps in between.


def test_every_parameter_is_looked_at_at_first_and_then_at_intervals(decided_agent):
    tx = alphaopt(agent=decided_agent, config=AlphaOptConfig(decision_interval=3))
    step, params = jax.jit(_step_of(tx)), _params()
    state, kept = tx.init(params), []
    for _ in range(9):
        params, state = step(params, state)
        kept.append(np.concatenate([np.ravel(each) for each in state.relative_rates.values()]))

    looked = [not np.array_equal(new, old) for old, new in itertools.pairwise(kept)]
    # At steps 1, 2 and 3, and then at steps 4 and 7, counted from 1.
    assert looked == [True, True, True, False, False, True, False, False]


def test_a_leaf_without_a_part_of_its_own_decides_as_its_parameters_do_on_average(decided_agent):
    """So that between two looks all of them follow what the agent sees and learns."""
    tx = alphaopt(agent=decided_agent, config=AlphaOptConfig(decision_interval=4))
    _, looked = _run(tx, steps=5)
    params, later = _run(tx, steps=7)

    assert not decided_agent.network.leaf_hidden
    for factors, at_look in zip(
        later.relative_rates.values(), looked.relative_rates.values(), strict=True
    ):
        np.testing.assert_array_equal(factors, at_look)
        logs = np.log(np.asarray(factors, np.float32))
        np.testing.assert_allclose(logs.mean(), 0.0, atol=1e-3)
        assert np.abs(logs).max() > 1e-2
    assert (later.leaf_log_rates != looked.leaf_log_rates).all()
    rates = alphaopt_jax.learning_rates(later, params)
    for name, leaf_rate in zip(rates, later.leaf_rates, strict=True):
        geometric_mean = np.exp(np.log(np.asarray(rates[name])).mean())
        np.testing.assert_allclose(geometric_mean, leaf_rate, rtol=1e-3)


def test_nobody_explores_at_the_last_step_of_a_rollout():
    tx = alphaopt(config=AlphaOptConfig(rollout_length=4, decision_interval=4))
    _, state = _run(tx, steps=4)

    rollout = state.learner.rollout
    np.testing.assert_array_equal(rollout.actions[-1], rollout.means[-1])
    assert (rollout.actions[:-1] != rollout.means[:-1]).all()
    # A fresh agent means all rates to be those of their leaves; no noise is left in them.
    for leaf in jax.tree.leaves(state.relative_rates):
        np.testing.assert_array_equal(leaf, 1.0)


def test_an_explorers_rate_is_its_leafs_times_its_own_factor():
    params, state = _run(alphaopt(), steps=2)

    rates = alphaopt_jax.learning_rates(state, params)
    actions = state.learner.rollout.actions[1]
    found = np.log(np.concatenate([np.ravel(rates[name]) for name in ("b", "w")]))
    scales = np.repeat(np.log(np.asarray(state.leaf_rates)), [3, 6])
    np.testing.assert_allclose(found - scales, actions, atol=1e-3)


@pytest.mark.parametrize("learn", [True, False])
def test_moments_in_half_precision_take_half_and_train_as_well(decided_agent, learn):
    config = AlphaOptConfig(moment_dtype="bfloat16")
    params, state = _run(alphaopt(agent=decided_agent, learn=learn, config=config), steps=60)
    expected, _ = _run(alphaopt(agent=decided_agent, learn=learn), steps=60)

    for tree in (state.gradient_average, state.squared_gradient_average):
        assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(tree))
    assert _loss(params) < 0.8 * _loss(_params())
    np.testing.assert_allclose(_loss(params), _loss(expected), rtol=0.2)


@pytest.mark.parametrize("small", [0, 1000])
def test_leaves_that_are_looked_at_together_are_decided_as_if_each_were_alone(
    decided_agent, monkeypatch, small
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

    alone, _ = _run(alphaopt(agent=decided_agent), 3, start, loss)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(coordinate_rates, "_SMALL", small)
    together, _ = _run(alphaopt(agent=decided_agent), 3, start, loss)

    _assert_close(together, alone, rtol=1e-5)


# What does not matter to it.


def test_order_of_the_coordinates_does_not_matter(decided_agent):
    params = jax.random.normal(jax.random.key(0), (50,))
    slopes = jnp.geomspace(0.01, 100.0, 50)
    order = jax.random.permutation(jax.random.key(1), 50)
    tx = alphaopt(agent=decided_agent)

    found, _ = _run(tx, 5, params, lambda x: jnp.sum(slopes * jnp.square(x - 1.0)))
    permuted, _ = _run(tx, 5, params[order], lambda x: jnp.sum(slopes[order] * jnp.square(x - 1.0)))

    np.testing.assert_allclose(
        permuted - params[order], (found - params)[order], rtol=_FLOAT16_RATES, atol=1e-6
    )


@pytest.mark.parametrize("scale", [1e-4, 1024.0])
def test_scale_of_the_loss_does_not_matter(decided_agent, scale):
    tx = alphaopt(agent=decided_agent)
    step = jax.jit(
        lambda params, state, scale: _step_of(tx, functools.partial(_loss, scale=scale))(
            params, state
        )
    )
    ends = []
    for factor in (1.0, scale):
        params, state = _params(), tx.init(_params())
        for _ in range(5):
            params, state = step(params, state, factor)
        ends.append(jax.tree.map(lambda end, start: end - start, params, _params()))

    _assert_close(ends[1], ends[0], rtol=_FLOAT16_RATES, atol=1e-6)


def test_a_step_without_a_loss_learns_too_and_the_loss_is_only_observed():
    tx = alphaopt(config=AlphaOptConfig(rollout_length=2))
    params, state = _params(), tx.init(_params())
    update = jax.jit(tx.update)
    for _ in range(4):
        updates, state = update(jax.grad(_loss)(params), state, params)
        params = optax.apply_updates(params, updates)

    assert state.learner.rounds == 2
    assert np.isnan(state.learner.loss)
    assert state.loss_history.observed == 0
    assert any(np.any(leaf) for leaf in jax.tree.leaves(state.agent["actor"]["output"]))
    assert _loss(params) < _loss(_params())


def test_a_model_without_parameters_is_left_alone():
    tx = alphaopt()

    updates, state = jax.jit(tx.update)({}, tx.init({}), {}, value=1.0)

    assert updates == {}
    assert state.updates_made == 1


# Steps that are skipped.


@pytest.mark.parametrize(
    ("spoiled", "value"),
    [(jnp.nan, 1.0), (jnp.inf, 1.0), (-jnp.inf, 1.0), (0.5, jnp.nan), (0.5, jnp.inf)],
)
@pytest.mark.parametrize("steps_before", [0, 1, 3])
def test_a_step_that_is_not_finite_changes_nothing(learning_update, spoiled, value, steps_before):
    init, update = learning_update
    params, state = _params(), init(_params())
    for _ in range(steps_before):
        updates, state = update(jax.grad(_loss)(params), state, params, _loss(params))
        params = optax.apply_updates(params, updates)
    good = jax.grad(_loss)(params)
    bad = good | {"w": good["w"].at[1, 0].set(spoiled)}

    updates, after = update(bad, state, params, value)

    assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))
    assert after.updates_skipped == 1
    _assert_equal(after._replace(updates_skipped=state.updates_skipped), state)
    # Training goes on as if nothing had been.
    updates, state = update(good, state, params, _loss(params))
    updates_after, after = update(good, after, params, _loss(params))
    _assert_equal(updates_after, updates)
    _assert_equal(after._replace(updates_skipped=state.updates_skipped), state)


# What is refused.


def test_missing_parameters_are_asked_for():
    tx = alphaopt()
    with pytest.raises(ValueError, match=r"needs the current parameters.*update\(grads, state, p"):
        tx.update(_params(), tx.init(_params()))


def test_state_of_another_optimizer_is_refused():
    state = optax.adam(1e-3).init(_params())
    with pytest.raises(ValueError, match=r"state of another optimizer, a tuple"):
        alphaopt().update(_params(), state, _params())
    with pytest.raises(ValueError, match=r"holds one AlphaOptState, found 0"):
        alphaopt_jax.metrics(state)


def test_state_of_another_alphaopt_is_refused():
    state = alphaopt(learn=False).init(_params())
    with pytest.raises(ValueError, match="differ in whether the agent learns"):
        alphaopt().update(_params(), state, _params())


def test_parameters_of_other_shapes_than_the_gradients_are_refused():
    tx, params = alphaopt(learn=False), _params()
    other = params | {"b": jnp.ones(4)}
    with pytest.raises(ValueError, match=r"The parameters and the gradients have.*\(4,\)"):
        tx.update(params, tx.init(params), other)
    with pytest.raises(ValueError, match=r"The optimizer state and the gradients.*Initialise"):
        tx.update(other, tx.init(params), other)


@pytest.mark.parametrize("mask", [{"b": True, "v": False}, {"b": True}, [True, False, True]])
def test_a_mask_that_does_not_fit_is_refused(mask):
    tx = alphaopt(learn=False, weight_decay=0.1, mask=mask)
    with pytest.raises(ValueError, match=r"`mask` must be a pytree of booleans like the param"):
        tx.update(_params(), tx.init(_params()), _params())


def test_rates_fall_to_a_known_horizon_and_with_the_root_of_time_to_an_unknown_one():
    silent = jax.tree.map(jnp.zeros_like, dict(alphaopt_jax.load_agent("base").params))
    agent = alphaopt_jax.Agent(silent, anytime_steps=4.0)
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
    agent = dataclasses.replace(agent, anytime_steps=math.inf)
    np.testing.assert_allclose(rates(6), np.ones(6), rtol=1e-6)


@pytest.mark.parametrize("num_steps", [0, -3])
def test_a_number_of_steps_below_one_is_refused(num_steps):
    with pytest.raises(ValueError, match=f"`num_steps` is the planned number.*{num_steps}"):
        alphaopt(num_steps=num_steps)


# Inside `jit`.


def test_a_training_compiles_once_and_gives_up_its_buffers():
    tx, traces = alphaopt(config=AlphaOptConfig(rollout_length=2)), []

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        traces.append(None)
        return _step_of(tx)(params, state)

    params, state = _params(), tx.init(_params())
    for _ in range(5):
        old = (params, state)
        params, state = step(params, state)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))

    assert len(traces) == 1
    assert step._cache_size() == 1
    assert state.learner.rounds == 2


def test_donating_the_state_leaves_the_agent_given_alone(decided_agent):
    tx = alphaopt(agent=decided_agent)
    state = tx.init(_params())
    jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)(state)

    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(decided_agent.params))


def test_training_under_scan_and_vmap_over_seeds_equals_steps_of_each_seed():
    config = AlphaOptConfig(rollout_length=2)

    start, loss = jnp.array([0.5, -1.0, 2.0]), lambda x: jnp.sum(jnp.square(x - 3.0))

    def train(seed):
        tx = alphaopt(seed=seed, config=config)
        (params, state), _ = jax.lax.scan(
            lambda carry, _: (_step_of(tx, loss)(*carry), None), (start, tx.init(start)), length=5
        )
        return params, alphaopt_jax.learning_rates(state, params)

    params, rates = jax.jit(jax.vmap(train))(jnp.arange(3))

    expected, state = _run(alphaopt(seed=1, config=config), 5, start, loss)
    np.testing.assert_allclose(params[1], expected, rtol=_FLOAT16_RATES)
    np.testing.assert_allclose(
        rates[1], alphaopt_jax.learning_rates(state, expected), rtol=_FLOAT16_RATES
    )
    assert not np.allclose(rates[0], rates[2], rtol=1e-3)


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


# Inside other transformations and trainings.


def test_in_a_chain_it_gets_the_clipped_gradients(decided_agent):
    tx = optax.chain(optax.clip_by_global_norm(0.1), alphaopt(agent=decided_agent))
    grads = jax.grad(_loss)(_params())
    clipped = jax.tree.map(lambda leaf: 0.1 * leaf / optax.tree.norm(grads), grads)

    updates, state = tx.update(grads, tx.init(_params()), _params(), value=1.0)

    inner = alphaopt(agent=decided_agent)
    expected, inner_state = inner.update(clipped, inner.init(_params()), _params(), value=1.0)
    _assert_close(updates, expected, rtol=1e-3)
    _assert_close(
        alphaopt_jax.metrics(state), alphaopt_jax.metrics(inner_state), rtol=1e-2, atol=1e-4
    )


def test_multi_steps_gives_it_the_mean_gradient(decided_agent):
    inner = alphaopt(agent=decided_agent)
    tx = optax.MultiSteps(inner, every_k_schedule=2)
    params, grads = _params(), jax.grad(_loss)(_params())
    state = tx.init(params)

    first, state = tx.update(grads, state, params, value=1.0)
    second, state = tx.update(jax.tree.map(lambda x: 3.0 * x, grads), state, params, value=1.0)

    assert not any(np.any(leaf) for leaf in jax.tree.leaves(first))
    mean = jax.tree.map(lambda x: 2.0 * x, grads)
    expected, _ = inner.update(mean, inner.init(params), params, value=1.0)
    _assert_close(second, expected, rtol=_FLOAT16_RATES)


def test_masked_it_changes_only_what_it_may(decided_agent):
    tx = optax.masked(alphaopt(agent=decided_agent), {"b": False, "w": True})
    params, grads = _params(), jax.grad(_loss)(_params())

    updates, _ = tx.update(grads, tx.init(params), params, value=1.0)

    alone = alphaopt(agent=decided_agent)
    only = {"w": params["w"]}
    expected, _ = alone.update({"w": grads["w"]}, alone.init(only), only, value=1.0)
    np.testing.assert_array_equal(updates["b"], grads["b"])
    np.testing.assert_allclose(updates["w"], expected["w"], rtol=1e-5)


def test_multi_transform_gives_it_its_share():
    tx = optax.multi_transform(
        {"ours": alphaopt(learn=False), "theirs": optax.sgd(0.1)}, {"b": "theirs", "w": "ours"}
    )

    params, state = _run(tx, steps=2)

    assert alphaopt_jax.metrics(state)["updates_made"] == 2
    descended = _run(optax.sgd(0.1), steps=2)[0]
    np.testing.assert_allclose(params["b"], descended["b"], rtol=1e-6)
    assert set(alphaopt_jax.learning_rates(state, {"w": params["w"]})) == {"w"}
    with pytest.raises(ValueError, match=r"of 1 arrays, but params has 2.*optax.partition"):
        alphaopt_jax.learning_rates(state, params)


def test_injected_hyperparameters_are_arrays_and_act():
    tx = optax.inject_hyperparams(alphaopt)(weight_decay=0.1, learn=False)
    params, grads = _params(), jax.grad(_loss)(_params())
    state = tx.init(params)
    assert {"learning_rate", "weight_decay", "seed"} == set(state.hyperparams)
    update = jax.jit(tx.update)

    updates, _ = update(grads, state, params, value=1.0)
    state.hyperparams["learning_rate"] = jnp.asarray(0.5)
    halved, _ = update(grads, state, params, value=1.0)

    plain = alphaopt(weight_decay=0.1, learn=False)
    _assert_close(updates, plain.update(grads, plain.init(params), params)[0], rtol=1e-5)
    base = min(_CONFIG.relative_step, _CONFIG.max_relative_step)
    factor = min(0.5 * _CONFIG.relative_step, _CONFIG.max_relative_step) / base
    _assert_close(halved, jax.tree.map(lambda leaf: factor * leaf, updates), rtol=1e-5)


def _regression():
    inputs = jax.random.normal(jax.random.key(3), (32, 4))
    return inputs, inputs @ jnp.array([[1.0], [-2.0], [0.5], [3.0]])


def test_nnx_optimizer_hands_it_the_loss():
    inputs, targets = _regression()
    model = nnx.Linear(4, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, alphaopt(), wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer):
        def loss(model):
            return jnp.mean(jnp.square(model(inputs) - targets))

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads, value=value)
        return value

    values = [train_step(model, optimizer) for _ in range(100)]

    assert values[-1] < 0.5 * values[0]
    metrics = alphaopt_jax.metrics(nnx.as_pure(optimizer.opt_state))
    assert metrics["updates_made"] == 100
    assert metrics["rounds"] > 0
    history = nnx.as_pure(optimizer.opt_state).loss_history
    assert history.observed == 100


class _TrainState(train_state.TrainState):
    def apply_gradients(self, *, grads, value, **kwargs):
        updates, opt_state = self.tx.update(grads, self.opt_state, self.params, value=value)
        params = optax.apply_updates(self.params, updates)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **kwargs)


def test_linen_train_state_hands_it_the_loss():
    inputs, targets = _regression()
    model = nn.Dense(1)
    state = _TrainState.create(
        apply_fn=model.apply, params=model.init(jax.random.key(0), inputs), tx=alphaopt()
    )

    @jax.jit
    def train_step(state):
        def loss(params):
            return jnp.mean(jnp.square(state.apply_fn(params, inputs) - targets))

        value, grads = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=grads, value=value), value

    values = []
    for _ in range(100):
        state, value = train_step(state)
        values.append(value)

    assert values[-1] < 0.5 * values[0]
    assert state.opt_state.loss_history.observed == state.step == 100
