"""The coordinatewise optimizer: features, optax interface, files and training."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alphaopt_jax.baselines import li_malik
from alphaopt_jax.baselines.li_malik import (
    _coordinate_features,
    _fits_2017,
    _guided_2017,
    _rollouts_2017,
)
from alphaopt_jax.baselines.li_malik._linear_gaussian import Controller
from alphaopt_jax.tasks.task import Task
from tests.baselines.small_policies import policy_2017

pytestmark = pytest.mark.slow

_SMALL = li_malik.Config2017(
    width=12,
    horizon=20,
    trajectories=4,
    coordinates=8,
    iterations=3,
    objective_batches=2,
    momentum=li_malik.MomentumGrid(learning_rates=(0.03, 0.1), decays=(0.0,)),
    prior=li_malik.PriorConfig(num_clusters=2, num_rounds=2, num_samples=20.0),
    policy_fit=li_malik.PolicyFit(num_updates=200, batch_size=32, learning_rate=3e-3),
)


def _with_updates(num_updates):
    fit = dataclasses.replace(_SMALL.policy_fit, num_updates=num_updates)
    return dataclasses.replace(_SMALL, policy_fit=fit)


def _bowl(noise=0.02):
    """Two groups of 3 and 2 coordinates; each batch adds noise to the minimum."""
    minimum = {"a": jnp.array([1.0, -2.0, 1.5]), "b": jnp.array([0.5, -1.0])}
    curvature = {"a": 2.0, "b": 0.5}

    def loss(params, batch):
        parts = jax.tree.map(
            lambda leaf, center, scale, moved: (
                0.5 * scale * jnp.sum(jnp.square(leaf - center - noise * moved))
            ),
            params,
            minimum,
            curvature,
            batch,
        )
        return sum(jax.tree.leaves(parts)) + 0.1

    def draw(key):
        return optax.tree.random_like(key, minimum)

    zeros = jax.tree.map(jnp.zeros_like, minimum)
    return Task("bowl", draw, draw, loss, lambda params: loss(params, zeros))


def test_state_features_match_values_computed_by_hand():
    """At t = 12, the strides end at steps 12, 7 and 2."""
    steps = np.arange(13)
    objectives = jnp.asarray(100.0 - steps**2)
    gradients = jnp.asarray(np.stack([steps - 4.0, -2.0 * steps], axis=1))
    locations = jnp.asarray(np.stack([0.1 * steps**2, 1.0 * steps], axis=1))

    features = _coordinate_features.state_features(
        objectives, gradients, locations, jnp.asarray(12)
    )

    expected = np.zeros((2, 76), np.float32)
    expected[:, 0] = (100 - 144 - (100 - 49)) / (100 - 49)
    expected[:, 1] = (100 - 49 - (100 - 4)) / (100 - 4)
    expected[:, 25] = [8 / (3 + 1), -24 / (14 + 1)]
    expected[:, 26] = [3 / (2 + 1), -14 / (4 + 1)]
    expected[:, 27] = [-2 / (2 + 1), -4 / (4 + 1)]  # max(2 - 5, 2 mod 5) is 2 itself.
    # |x7 - x2| / (|x12 - x7| + 0.1), then |x7 - x2| again over itself.
    expected[:, 51] = [(4.9 - 0.4) / (14.4 - 4.9 + 0.1), 5 / (5 + 0.1)]
    expected[:, 52] = [(4.9 - 0.4) / (4.9 - 0.4 + 0.1), 5 / (5 + 0.1)]
    np.testing.assert_allclose(features, expected, rtol=1e-5)


def test_state_features_of_the_first_step():
    features = _coordinate_features.state_features(
        jnp.array([2.0, 0.0]), jnp.array([[3.0], [0.0]]), jnp.ones((2, 1)), jnp.asarray(0)
    )

    expected = np.zeros(76)
    expected[25] = 3.0 / (3.0 + 1.0)
    np.testing.assert_allclose(features[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("num_points", "expected"),
    [(1, [0.0, 0.0, 0.0]), (2, [-0.5, 1.5, 0.0]), (3, [-0.5, 1.5, 0.5])],
)
def test_observation_features_match_values_computed_by_hand(num_points, expected):
    recent = _coordinate_features.RecentPoints(
        num_points=jnp.asarray(num_points),
        objective=2.0,
        previous_objective=4.0,
        gradient=jnp.array([6.0]),
        previous_gradient=jnp.array([-3.0]),
        last_step=jnp.array([0.3]),
        previous_step=jnp.array([-0.2]),
    )

    features = _coordinate_features.observation_features(recent)

    np.testing.assert_allclose(features[0], expected, rtol=1e-6)


def test_features_are_smoothed_over_three_iterates():
    problem = _rollouts_2017.make_problem(_bowl(), _SMALL, jax.random.key(0))
    past, locations = _rollouts_2017.init_features(5, 4), []
    for step in range(5):
        location = jnp.arange(5.0) * step**2
        locations.append(location)
        past, _ = _rollouts_2017.observe(problem, past, location, jax.random.key(step))

    smoothed = past.smoothed[2]
    np.testing.assert_allclose(smoothed[0], locations[0])
    np.testing.assert_allclose(smoothed[1], (locations[0] + locations[1]) / 2)
    np.testing.assert_allclose(smoothed[4], sum(locations[2:]) / 3, rtol=1e-6)
    losses = [problem.loss(locations[step], jax.random.key(step)) for step in (2, 3, 4)]
    assert float(past.smoothed[0][4]) == pytest.approx(float(sum(losses)) / 3, rel=1e-5)


def test_features_use_batches_and_costs_use_the_objective():
    config = dataclasses.replace(_SMALL, horizon=1)
    problem = _rollouts_2017.make_problem(_bowl(noise=1.0), config, jax.random.key(0))
    key, start = jax.random.key(1), problem.starts[0]
    still = _rollouts_2017.momentum_controllers(problem, 0.0, 0.0)
    selected = jnp.array([[2, 0], [3, 4]])

    samples = _rollouts_2017.rollout_controllers(problem, still, start, selected, key)

    first_key, _, batch_key = jax.random.split(key, 3)
    keys = [first_key, *jax.random.split(batch_key, 1)]
    of_batch = [jax.grad(problem.loss)(start, each)[selected] for each in keys]
    newest = samples.states[1, :, :, _coordinate_features.NEWEST_GRADIENT]
    mean = 0.5 * (of_batch[0] + of_batch[1])
    # One step after the first, there is no value 5 steps back: it is compared with itself.
    np.testing.assert_allclose(newest, mean / (jnp.abs(mean) + 1.0), atol=1e-5)
    slope = jax.grad(problem.objective)(start)
    np.testing.assert_allclose(samples.gradients[1], slope[selected], atol=1e-5)
    squares = [jnp.sum(slope[:3] ** 2), jnp.sum(slope[3:] ** 2)]
    np.testing.assert_allclose(samples.squared_gradients[1], squares, rtol=1e-4)
    assert float(samples.objectives[1]) == pytest.approx(float(problem.objective(start)), rel=1e-5)


def test_groups_are_leaves_and_coordinates_are_drawn_from_each():
    problem = _rollouts_2017.make_problem(_bowl(), _SMALL, jax.random.key(0))

    selected = _rollouts_2017.sample_coordinates(problem, jax.random.key(1), 100)

    assert problem.groups.tolist() == [0, 0, 0, 1, 1]
    assert sorted(set(selected[0].tolist())) == [0, 1, 2]
    assert sorted(set(selected[1].tolist())) == [3, 4]


def test_noise_has_the_controllers_variance_and_correlates_with_the_mean_action():
    config = dataclasses.replace(_SMALL, horizon=2, noise_correlation=0.8)
    problem = _rollouts_2017.make_problem(_bowl(noise=0.0), config, jax.random.key(0))
    start = jnp.array([3.0, 1.0, -1.0, 2.0, 2.0])
    quiet = _rollouts_2017.momentum_controllers(problem, 0.1, 0.0)
    loud = quiet._replace(covariance=jnp.full((2, 2, 1, 1), 0.04))
    selected = jnp.array([[0, 1, 2], [3, 4, 4]])

    def first_actions(controllers, key):
        samples = _rollouts_2017.rollout_controllers(problem, controllers, start, selected, key)
        return samples.actions[0]

    mean = first_actions(quiet, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 4000)
    noise = jax.vmap(lambda key: first_actions(loud, key))(keys) - mean

    # The mean variance over a group is that of the controller.
    assert float(jnp.mean(jnp.var(noise, axis=0)[0])) == pytest.approx(0.04, rel=0.05)
    direction = mean[0] / jnp.linalg.norm(mean[0])
    along = jnp.var(noise[:, 0] @ direction)
    # With 3 coordinates, 0.64 of the variance lies along the mean, and a third of the rest.
    assert float(along) == pytest.approx(3 * 0.04 * (0.64 + 0.36 / 3), rel=0.07)


def test_cost_weights_are_recovered_and_nonnegative():
    key, noise_key = jax.random.split(jax.random.key(0))
    slopes = jax.random.uniform(key, (4, 50, 3))
    objectives = 7.0 + 0.5 * slopes @ jnp.array([4.0, -2.0, 1.0])
    objectives += 0.01 * jax.random.normal(noise_key, objectives.shape)
    samples = _rollouts_2017.Samples(None, None, None, objectives, None, slopes, None)

    weights = _fits_2017.fit_cost(samples)

    # Shrunk by the ridge; negative weights are 0.
    np.testing.assert_allclose(weights, [4.0 / 1.1, 0.0, 1.0 / 1.1], atol=0.3)


def test_optimizer_matches_the_trajectory_in_training():
    task, policy = _bowl(), policy_2017(width=_SMALL.width)
    problem = _rollouts_2017.make_problem(task, _SMALL, jax.random.key(0))
    key = jax.random.key(5)
    start = problem.starts[1]
    trajectory = _rollouts_2017.rollout_policy(problem, policy.params, start, key)

    keys = jax.random.split(key, _SMALL.horizon)
    tx = li_malik.li_malik_2017(policy)
    params = {"a": start[:3], "b": start[3:]}
    state, objectives = tx.init(params), []
    for step_key in keys:
        objectives.append(problem.objective(jnp.concatenate([params["a"], params["b"]])))
        loss, grads = jax.value_and_grad(task.loss)(params, task.batch(step_key))
        updates, state = tx.update(grads, state, params, value=loss)
        params = optax.apply_updates(params, updates)

    np.testing.assert_allclose(jnp.stack(objectives), trajectory[:-1], rtol=1e-4)


def test_updates_do_not_depend_on_the_tree():
    tx = li_malik.li_malik_2017(policy_2017())
    vector = jnp.array([1.0, -2.0, 3.0])
    tree = {"a": jnp.asarray(1.0), "b": jnp.array([[-2.0, 3.0]])}
    of_vector, of_tree = tx.init(vector), tx.init(tree)
    for value in (3.0, 2.0, 4.0):
        vector_step, of_vector = tx.update(value * vector, of_vector, value=value)
        scaled = jax.tree.map(lambda leaf: value * leaf, tree)  # noqa: B023
        tree_step, of_tree = tx.update(scaled, of_tree, value=value)

    np.testing.assert_allclose(tree_step["a"], vector_step[0], rtol=1e-5)
    np.testing.assert_allclose(tree_step["b"], vector_step[None, 1:], rtol=1e-5)


def test_every_parameter_has_its_own_lstm_state():
    state = li_malik.li_malik_2017(policy_2017()).init({"w": jnp.ones((2, 3)), "b": jnp.ones(())})

    assert state.cell["w"].shape == (2, 3, 8)
    assert state.hidden["b"].shape == (8,)


def test_saved_policy_is_loaded(tmp_path):
    policy = policy_2017()
    li_malik.save_2017(tmp_path / "mine.safetensors", policy)

    loaded = li_malik.load_2017(tmp_path / "mine.safetensors")

    assert loaded.width == 8
    jax.tree.map(np.testing.assert_array_equal, dict(loaded.params), dict(policy.params))
    with pytest.raises(ValueError, match="not a policy of Li & Malik 2016"):
        li_malik.load_2016(tmp_path / "mine.safetensors")


def test_invalid_policies_raise():
    with pytest.raises(ValueError, match="needs network/lstm"):
        li_malik.Policy2017({"network": {}})
    params = dict(policy_2017().params)
    params["scales"] = params["scales"] | {"features": jnp.ones(4)}
    with pytest.raises(ValueError, match="takes 3 features"):
        li_malik.Policy2017(params)


def test_first_controllers_are_gradient_descent():
    config = dataclasses.replace(_SMALL, horizon=6)
    problem = _rollouts_2017.make_problem(_bowl(noise=0.0), config, jax.random.key(0))
    key = jax.random.key(1)
    controllers = _rollouts_2017.momentum_controllers(problem, 0.1, 0.0)
    none = jnp.zeros((2, 0), jnp.int32)

    start = problem.starts[0]
    samples = _rollouts_2017.rollout_controllers(problem, controllers, start, none, key)

    location, past = start, []
    for step in range(config.horizon):
        assert float(problem.objective(location)) == pytest.approx(
            float(samples.objectives[step]), rel=1e-4
        )
        past.append(jax.grad(problem.loss)(location, key))
        slope = np.mean(past[-3:], axis=0)
        before = np.mean(past[:1] if step == 5 else past[-3:], axis=0)
        location = location - 0.1 * slope / (np.abs(before) + 1.0)


@pytest.mark.nightly
def test_training_improves_the_controllers():
    result = li_malik.train_2017(_bowl(), _SMALL, show_progress=False)

    assert [entry["round"] for entry in result.history] == [0, 1, 2]
    assert result.cost == min(entry["policy_cost"] for entry in result.history)
    assert result.history[-1]["controller_cost"] < result.history[0]["controller_cost"]
    assert np.isfinite(result.cost)


@pytest.mark.nightly
def test_search_reverts_worse_controllers():
    config = _with_updates(2)
    problem = _rollouts_2017.make_problem(_bowl(), config, jax.random.key(0))
    guided_search = _guided_2017.GuidedSearch(problem)
    search, _ = jax.jit(guided_search.init)(jax.random.key(1))
    good = search.accepted
    wild = Controller(-100.0 * good.gain, good.offset, good.covariance)
    search = search._replace(controllers=wild, predicted=jnp.asarray(1.0))

    search, metrics = jax.jit(guided_search.iterate)(search, jax.random.key(2))

    assert metrics["controller_cost"] > search.accepted_cost / config.horizon
    jax.tree.map(np.testing.assert_array_equal, search.controllers, good)
    assert float(metrics["bound"]) == pytest.approx(0.2 * config.trust_region.max_divergence)


@pytest.mark.nightly
def test_resumed_search_ends_with_the_same_policy(tmp_path):
    config = _with_updates(5)
    whole = li_malik.train_2017(_bowl(), config, folder=tmp_path, show_progress=False)
    shutil.rmtree(tmp_path / "checkpoints" / "3")

    resumed = li_malik.train_2017(_bowl(), config, folder=tmp_path, show_progress=False)

    assert resumed.history == whole.history
    jax.tree.map(
        np.testing.assert_array_equal, dict(resumed.policy.params), dict(whole.policy.params)
    )
