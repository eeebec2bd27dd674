"""The full-vector optimizer: features, optax interface, files and training."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alphaopt_jax.baselines import li_malik
from alphaopt_jax.baselines.li_malik import (
    _fits_2016,
    _guided_2016,
    _history,
    _policies,
    _rollouts_2016,
)
from alphaopt_jax.baselines.li_malik._linear_gaussian import next_state
from alphaopt_jax.tasks.task import Family, Task
from tests.baselines.small_policies import policy_2016

pytestmark = pytest.mark.slow

_SMALL = li_malik.Config2016(
    history=4,
    hidden=20,
    horizon=12,
    trajectories=10,
    num_functions=3,
    starts=2,
    iterations=4,
    validation_functions=8,
    prior=li_malik.PriorConfig(num_clusters=3, num_rounds=4, num_samples=10.0),
    trust_region=li_malik.TrustRegion(max_divergence=20.0),
    kl_weight=0.003,
    policy_fit=li_malik.PolicyFit(num_updates=400, batch_size=64, learning_rate=3e-3),
)


def _with_updates(num_updates, **changes):
    fit = dataclasses.replace(_SMALL.policy_fit, num_updates=num_updates)
    return dataclasses.replace(_SMALL, policy_fit=fit, **changes)


def _bowls():
    """Quadratics of two parameters, with curvatures between 0.5 and 4.5."""

    def sample(key):
        curvature_key, rotation_key, minimum_key = jax.random.split(key, 3)
        curvatures = jax.random.uniform(curvature_key, (2,), minval=0.5, maxval=4.5)
        rotation = jax.random.orthogonal(rotation_key, 2)
        return curvatures, rotation, jax.random.normal(minimum_key, (2,))

    def task(instance):
        curvatures, rotation, minimum = instance

        def loss(params, batch=None):
            del batch
            return 0.5 * jnp.sum(curvatures * jnp.square(rotation.T @ (params - minimum)))

        return Task(
            "bowl", lambda key: jax.random.normal(key, (2,)), lambda key: jnp.zeros(()), loss, loss
        )

    return Family("bowls", sample, task)


def _history_of(objectives, gradients, *, length, current_gradient):
    history = _history.empty_history(len(gradients[0]), length)
    for objective, gradient in zip(objectives, gradients, strict=True):
        history = _history.append(
            history,
            jnp.asarray(objective),
            jnp.asarray(gradient, jnp.float32),
            current_gradient=current_gradient,
        )
    return history


@pytest.mark.parametrize(
    ("num_points", "current_gradient", "expected"),
    [
        # Changes since the 1st, 2nd and 3rd point before, then three gradients of two entries.
        (1, True, [0, 0, 0, 1, 2, 0, 0, 0, 0]),
        (1, False, [0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (2, True, [-3, 0, 0, 3, 4, 1, 2, 0, 0]),
        (2, False, [-3, 0, 0, 1, 2, 0, 0, 0, 0]),
        (3, True, [-2, -5, 0, 5, 6, 3, 4, 1, 2]),
        (5, True, [-1, 0, -2, 9, 10, 7, 8, 5, 6]),
        (5, False, [-1, 0, -2, 7, 8, 5, 6, 3, 4]),
    ],
)
def test_features_match_values_computed_by_hand(num_points, current_gradient, expected):
    objectives = [10.0, 7.0, 5.0, 6.0, 5.0][:num_points]
    gradients = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]][:num_points]

    history = _history_of(objectives, gradients, length=3, current_gradient=current_gradient)

    assert _history.features(history).tolist() == expected
    state = _history.to_state(jnp.array([100.0, 200.0]), history)
    assert _history.features_of_state(state, history.num_points, 2).tolist() == expected


@pytest.mark.parametrize("current_gradient", [pytest.param(True, marks=pytest.mark.nightly), False])
def test_fitted_dynamics_and_cost_are_exact_on_a_quadratic(current_gradient):
    """On a quadratic, gradients are linear in the location."""
    config = dataclasses.replace(
        _SMALL,
        current_gradient=current_gradient,
        trajectories=60,
        noise=li_malik.NoiseConfig(scale=1.0),
    )
    hessian, minimum = jnp.array([[2.0, 0.5], [0.5, 1.0]]), jnp.array([1.0, -1.0])

    def objective(location):
        return 0.5 * (location - minimum) @ hessian @ (location - minimum)

    controller, _ = _rollouts_2016.best_momentum(objective, jnp.zeros(2), config)
    samples = jax.vmap(
        lambda key: _rollouts_2016.rollout_controller(
            objective, jnp.zeros(2), controller, key, config
        )
    )(jax.random.split(jax.random.key(0), config.trajectories))
    dynamics = _fits_2016.fit_dynamics(samples, config)
    cost = _fits_2016.fit_cost(samples, config)

    np.testing.assert_allclose(cost.hessian[3:], jnp.broadcast_to(hessian, (9, 2, 2)), atol=0.05)
    at_step = 6
    one = jax.tree.map(lambda leaf: leaf[at_step], dynamics)
    for state, action, after, objective_after in zip(
        samples.states[:5, at_step],
        samples.actions[:5, at_step],
        samples.states[:5, at_step + 1],
        samples.objectives[:5, at_step + 1],
        strict=True,
    ):
        predicted = next_state(one, state, action, shift=3)
        linear = [0, 1, *range(5, 14)]  # All but the change of the objective, which is not linear.
        np.testing.assert_allclose(
            predicted[jnp.array(linear)], after[jnp.array(linear)], atol=0.05
        )
        location = after[:2]
        fitted = (
            0.5 * location @ cost.hessian[at_step] @ location
            + cost.gradient[at_step] @ location
            + cost.constant[at_step]
        )
        assert float(fitted) == pytest.approx(float(objective_after), abs=0.05)


def test_first_controller_matches_optax_momentum():
    config = dataclasses.replace(_SMALL, history=12, momentum=li_malik.MomentumGrid((0.1,), (0.9,)))
    instance = _bowls().sample(jax.random.key(3))
    task = _bowls().task(instance)
    start = task.init(jax.random.key(0))

    def objective(location):
        return task.loss(location, jnp.zeros(2))

    controller, cost = _rollouts_2016.best_momentum(objective, start, config)

    tx = optax.sgd(0.1, momentum=0.9)
    params, state, losses = start, tx.init(start), []
    for _ in range(config.horizon):
        updates, state = tx.update(jax.grad(objective)(params), state)
        params = optax.apply_updates(params, updates)
        losses.append(float(objective(params)))
    assert float(cost) == pytest.approx(sum(losses), rel=1e-4)
    assert controller.gain.shape == (12, 2, 2 + 12 * 3)


def test_optimizer_matches_the_trajectory_in_training():
    policy = policy_2016(dimension=2, history=_SMALL.history)
    task = _bowls().draw(jax.random.key(1))
    start, batch = task.init(jax.random.key(2)), task.batch(jax.random.key(3))
    trajectory = _rollouts_2016.rollout_policy(
        lambda location: task.loss(location, batch), start, policy.params, _SMALL
    )

    tx = li_malik.li_malik_2016(policy)
    params, state, losses = start, tx.init(start), []
    for _ in range(_SMALL.horizon):
        loss, grads = jax.value_and_grad(task.loss)(params, batch)
        updates, state = tx.update(grads, state, params, value=loss)
        params = optax.apply_updates(params, updates)
        losses.append(float(loss))

    np.testing.assert_allclose(losses, trajectory.objectives[:-1], rtol=1e-4)


def test_leaves_are_concatenated_in_tree_order():
    tx = li_malik.li_malik_2016(policy_2016())
    vector = jnp.array([1.0, -2.0, 3.0])
    tree = {"a": jnp.asarray(1.0), "b": jnp.array([[-2.0, 3.0]])}

    of_vector, _ = tx.update(vector, tx.init(vector), vector, value=1.0)
    of_tree, _ = tx.update(tree, tx.init(tree), tree, value=1.0)

    np.testing.assert_allclose(of_tree["a"], of_vector[0])
    np.testing.assert_allclose(of_tree["b"], of_vector[None, 1:])


def test_step_is_zero_for_zero_features():
    params = jax.tree.map(lambda leaf: leaf + 0.3, policy_2016().params)

    np.testing.assert_array_equal(_policies.step_2016(params, jnp.zeros(8)), 0.0)
    assert float(jnp.abs(_policies.step_2016(params, jnp.ones(8))).min()) > 0.0


def test_state_holds_the_history():
    tx = li_malik.li_malik_2016(policy_2016())
    params = jnp.ones(3)

    _, state = tx.update(params, tx.init(params), params, value=1.0)

    assert (state.history.changes.shape, state.history.gradients.shape) == ((2,), (2, 3))


def test_other_dimensions_raise():
    tx = li_malik.li_malik_2016(policy_2016())

    with pytest.raises(ValueError, match=r"functions of 3 parameters, but there are 4"):
        tx.init({"w": jnp.ones((2, 2))})
    with pytest.raises(ValueError, match=r"functions of 3 parameters, but there are 2"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(3)), value=1.0)


@pytest.mark.parametrize("current_gradient", [True, False])
def test_saved_policy_is_loaded(tmp_path, current_gradient):
    policy = policy_2016(current_gradient=current_gradient)
    li_malik.save_2016(tmp_path / "mine.safetensors", policy)

    loaded = li_malik.load_2016(tmp_path / "mine.safetensors")

    assert (loaded.dimension, loaded.history) == (3, 2)
    assert loaded.current_gradient == current_gradient
    jax.tree.map(np.testing.assert_array_equal, dict(loaded.params), dict(policy.params))
    tx = li_malik.li_malik_2016(tmp_path / "mine.safetensors")
    assert tx.init(jnp.ones(3)).history.gradients.shape == (2, 3)


def test_invalid_policies_raise(tmp_path):
    with pytest.raises(FileNotFoundError, match="No policy of Li & Malik 2016 'nowhere'"):
        li_malik.load_2016("nowhere")
    with pytest.raises(ValueError, match="needs network/hidden"):
        li_malik.Policy2016({"network": {}})
    params = dict(policy_2016().params)
    params["scales"] = params["scales"] | {"features": jnp.ones(5)}
    with pytest.raises(ValueError, match="takes 8 features"):
        li_malik.Policy2016(params)


def test_linearized_policy_matches_mean_action_and_derivative():
    policy = policy_2016(dimension=2, history=4)
    states = jax.random.normal(jax.random.key(0), (5, 3, 14))

    gain, offset = _fits_2016.linearize(policy.params, states, 2)

    def action(state, num_points):
        return _policies.step_2016(policy.params, _history.features_of_state(state, num_points, 2))

    center = jnp.mean(states, axis=0)
    for step in range(3):
        num_points = jnp.asarray(step + 1)
        mean = jnp.mean(jnp.stack([action(each, num_points) for each in states[:, step]]), axis=0)
        np.testing.assert_allclose(gain[step] @ center[step] + offset[step], mean, atol=1e-5)
        nudge = jnp.zeros(14).at[3].set(1e-2)
        change = action(center[step] + nudge, num_points) - action(center[step] - nudge, num_points)
        np.testing.assert_allclose(gain[step] @ nudge, change / 2.0, atol=1e-5)


def test_policy_imitates_controllers():
    """Gradient descent with momentum can be imitated exactly from the features."""
    family = _bowls()
    functions = _rollouts_2016.draw_functions(family, jax.random.key(0), 4, starts=2)
    config = _with_updates(3000, momentum=li_malik.MomentumGrid((0.05,), (0.5,)))
    guided_search = _guided_2016.GuidedSearch(family, config)
    controllers, costs = jax.jit(guided_search.tune_momentum)(functions)

    search = jax.jit(guided_search.init)(controllers, costs, functions, jax.random.key(1))

    policy_costs = guided_search._policy_costs(functions, search.policy.params)
    np.testing.assert_allclose(policy_costs, costs, rtol=0.1)


def test_policy_improves_on_the_momentum_of_the_first_controllers():
    """On its training functions, from a momentum that is not optimal."""
    momentum = li_malik.MomentumGrid((0.1,), (0.5,))
    config = _with_updates(1000, num_functions=8, kl_weight=0.001, momentum=momentum)
    result = li_malik.train_2016(_bowls(), config, show_progress=False)

    functions_key = jax.random.split(jax.random.key(0), 4)[0]
    functions = _rollouts_2016.draw_functions(_bowls(), functions_key, 8, _SMALL.starts)
    _, costs = _guided_2016.GuidedSearch(_bowls(), config).tune_momentum(functions)
    momentum_cost = float(jnp.mean(costs)) / config.horizon
    assert result.history[-1]["policy_cost"] < 0.9 * momentum_cost
    assert result.history[-1]["controller_cost"] < result.history[0]["controller_cost"]
    assert [entry["round"] for entry in result.history] == [0, 1, 2, 3]
    assert result.cost == min(entry["validation_cost"] for entry in result.history)


@pytest.mark.nightly
def test_resumed_search_ends_with_the_same_policy(tmp_path):
    config = _with_updates(20)

    def train(folder):
        return li_malik.train_2016(_bowls(), config, folder=folder, show_progress=False)

    whole = train(tmp_path / "whole")
    # As after an interruption in the last iteration.
    checkpoints = tmp_path / "whole" / "checkpoints"
    kept = sorted(path.name for path in checkpoints.iterdir() if path.name.isdigit())
    for name in kept[1:]:
        shutil.rmtree(checkpoints / name)
    resumed = train(tmp_path / "whole")

    assert kept == ["3", "4"]
    assert resumed.history == whole.history
    jax.tree.map(
        np.testing.assert_array_equal, dict(resumed.policy.params), dict(whole.policy.params)
    )


def test_folder_of_another_search_raises(tmp_path):
    config = dataclasses.replace(_SMALL, iterations=0)
    li_malik.train_2016(_bowls(), config, folder=tmp_path, show_progress=False)

    with pytest.raises(ValueError, match="seed"):
        li_malik.train_2016(_bowls(), config, folder=tmp_path, seed=1, show_progress=False)
