"""Linear-Gaussian controllers and their improvement, against independent solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from alphaopt_jax.baselines.li_malik import _lqg
from alphaopt_jax.baselines.li_malik._linear_gaussian import (
    Controller,
    Cost,
    Dynamics,
    Gaussian,
    Model,
    divergence,
    draw_noise,
    expectations,
    next_state,
    shift_source,
)

pytestmark = pytest.mark.slow

_HORIZON, _SIZE, _DYNAMIC, _ACTIONS, _OBSERVED, _SHIFT = 6, 9, 5, 2, 2, 2


def _point(state):
    return Gaussian(state, jnp.zeros((state.shape[0], state.shape[0])))


def _spread(key, size, scale=1.0):
    factor = jax.random.normal(key, (_HORIZON, size, size + 2)) / np.sqrt(size)
    return scale * factor @ factor.swapaxes(1, 2)


def _normal(key, *shape, scale=1.0):
    return scale * jax.random.normal(key, (_HORIZON, *shape))


@pytest.fixture(scope="module")
def problem():
    keys = iter(jax.random.split(jax.random.key(0), 20))
    dynamics = Dynamics(
        transition=_normal(next(keys), _DYNAMIC, _DYNAMIC, scale=0.3),
        control=_normal(next(keys), _DYNAMIC, _ACTIONS),
        constant=_normal(next(keys), _DYNAMIC),
        covariance=_spread(next(keys), _DYNAMIC, 0.1),
    )
    cost = Cost(
        hessian=_spread(next(keys), _OBSERVED),
        gradient=_normal(next(keys), _OBSERVED),
        constant=_normal(next(keys)),
    )
    old = Controller(
        gain=_normal(next(keys), _ACTIONS, _SIZE, scale=0.2),
        offset=_normal(next(keys), _ACTIONS),
        covariance=_spread(next(keys), _ACTIONS, 0.3),
    )
    penalty = _lqg.PolicyPenalty(
        gain=_normal(next(keys), _ACTIONS, _SIZE, scale=0.2),
        offset=_normal(next(keys), _ACTIONS),
        weight=jnp.abs(_normal(next(keys))),
        multiplier=_normal(next(keys), _ACTIONS),
    )
    start = Gaussian(jax.random.normal(next(keys), (_SIZE,)), _spread(next(keys), _SIZE, 0.2)[0])
    return Model(dynamics, cost, start, _SHIFT), old, penalty


def _penalized(controller, problem, weight):
    model, old, penalty = problem
    near_old = expectations(model, controller, old)
    policy = Controller(penalty.gain, penalty.offset, old.covariance)
    near_policy = expectations(model, controller, policy)
    return (
        jnp.sum(near_old.cost)
        - jnp.sum(penalty.multiplier * near_old.action)
        + weight * jnp.sum(near_old.divergence)
        + jnp.sum(penalty.weight * near_policy.divergence)
    )


def _as_dense(dynamics):
    """The same dynamics, with all entries dynamic."""
    source = shift_source(_SIZE, _DYNAMIC, _SHIFT)
    rows = np.eye(_SIZE)[source]
    transition = np.zeros((_HORIZON, _SIZE, _SIZE), np.float32)
    transition[:, :_DYNAMIC, :_DYNAMIC] = dynamics.transition
    transition[:, _DYNAMIC:] = rows
    shifted = _SIZE - _DYNAMIC
    return Dynamics(
        jnp.asarray(transition),
        jnp.pad(dynamics.control, ((0, 0), (0, shifted), (0, 0))),
        jnp.pad(dynamics.constant, ((0, 0), (0, shifted))),
        jnp.pad(dynamics.covariance, ((0, 0), (0, shifted), (0, shifted))),
    )


def test_backward_pass_solves_the_quadratic_program(problem):
    model, old, penalty = problem
    dynamics, cost, start = model.dynamics, model.cost, model.start
    weight = 0.7
    precision = jnp.linalg.inv(old.covariance)

    def total(actions):
        state, sum_ = start.mean, 0.0
        for t in range(_HORIZON):
            for gain, offset, share in (
                (old.gain[t], old.offset[t], weight),
                (penalty.gain[t], penalty.offset[t], penalty.weight[t]),
            ):
                off = actions[t] - gain @ state - offset
                sum_ += 0.5 * share * off @ precision[t] @ off
            sum_ -= penalty.multiplier[t] @ actions[t]
            one = jax.tree.map(lambda leaf: leaf[t], dynamics)  # noqa: B023
            state = next_state(one, state, actions[t], _SHIFT)
            observed = state[:_OBSERVED]
            sum_ += 0.5 * observed @ cost.hessian[t] @ observed + cost.gradient[t] @ observed
        return sum_

    zero = jnp.zeros((_HORIZON, _ACTIONS))
    matrix = np.asarray(jax.hessian(total)(zero), np.float64).reshape(zero.size, zero.size)
    vector = np.asarray(jax.grad(total)(zero), np.float64).ravel()
    solution = -np.linalg.solve(matrix, vector).reshape(zero.shape)

    controller = _lqg.backward_pass(model, old, penalty, weight)
    without_noise = dynamics._replace(covariance=0.0 * dynamics.covariance)
    deterministic = Model(without_noise, cost, _point(start.mean), _SHIFT)
    expected = expectations(deterministic, controller, old)

    np.testing.assert_allclose(expected.action, solution, rtol=2e-3, atol=2e-3)


def test_solution_is_a_stationary_point(problem):
    weight = 0.7
    model, old, penalty = problem
    controller = _lqg.backward_pass(model, old, penalty, weight)

    slope = jax.grad(_penalized)(controller, problem, weight)
    elsewhere = jax.grad(_penalized)(old, problem, weight)

    # Only symmetric changes of covariances are feasible.
    slope = slope._replace(covariance=slope.covariance + slope.covariance.swapaxes(1, 2))
    for at_solution, at_old in zip(slope, elsewhere, strict=True):
        assert np.max(np.abs(at_solution)) < 2e-4 * np.max(np.abs(at_old))


def test_long_horizon_gives_the_gain_of_the_riccati_equation():
    size, actions, horizon, weight = 4, 2, 150, 0.5
    keys = jax.random.split(jax.random.key(3), 2)
    transition = 0.6 * jax.random.normal(keys[0], (size, size))
    control = jax.random.normal(keys[1], (size, actions))
    hessian = jnp.diag(jnp.array([1.0, 2.0, 0.5, 0.1]))

    def always(array):
        return jnp.broadcast_to(array, (horizon, *array.shape))

    dynamics = Dynamics(
        always(transition), always(control), jnp.zeros((horizon, size)), always(jnp.eye(size))
    )
    cost = Cost(always(hessian), jnp.zeros((horizon, size)), jnp.zeros(horizon))
    old = Controller(
        jnp.zeros((horizon, actions, size)), jnp.zeros((horizon, actions)), always(jnp.eye(actions))
    )

    start = _point(jnp.zeros(size))
    model = Model(dynamics, cost, start, shift=size)
    controller = _lqg.backward_pass(model, old, _lqg.no_penalty(old), weight)

    value = scipy.linalg.solve_discrete_are(
        *(np.asarray(each, np.float64) for each in (transition, control, hessian)),
        weight * np.eye(actions),
    )
    inner = weight * np.eye(actions) + control.T @ value @ control
    gain = -np.linalg.solve(inner, control.T @ value @ transition)
    np.testing.assert_allclose(controller.gain[0], gain, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        controller.covariance[0], weight * np.linalg.inv(inner), rtol=1e-3, atol=1e-5
    )


def test_shift_entries_give_the_same_solution_as_dense_dynamics(problem):
    model, old, penalty = problem
    dense = Model(_as_dense(model.dynamics), model.cost, model.start, _SIZE)

    structured = _lqg.improve(model, old, penalty, 3.0)
    plain = _lqg.improve(dense, old, penalty, 3.0)
    expected = expectations(model, structured.controller, old)
    expected_plain = expectations(dense, structured.controller, old)

    for mine, theirs in zip(structured.controller, plain.controller, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)
    for mine, theirs in zip(expected, expected_plain, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bound", [0.1, 5.0])
def test_divergence_equals_the_bound(problem, bound):
    improved = _lqg.improve(*problem, bound)

    assert float(improved.divergence) == pytest.approx(bound, rel=0.01)


def test_wide_bound_is_inactive(problem):
    model, old, penalty = problem
    penalty = penalty._replace(weight=jnp.full(_HORIZON, 1.0))

    improved = _lqg.improve(model, old, penalty, 1e4)
    free = _lqg.backward_pass(model, old, penalty, 1e-9)

    assert float(improved.divergence) < 1e4
    np.testing.assert_allclose(improved.controller.gain, free.gain, rtol=1e-4, atol=1e-4)


def test_cost_decreases_with_the_bound(problem):
    model, old, _ = problem
    before = float(jnp.sum(expectations(model, old, old).cost))

    costs = [
        float(_lqg.improve(model, old, _lqg.no_penalty(old), bound).cost)
        for bound in (0.01, 1.0, 10.0)
    ]

    assert before > costs[0] > costs[1] > costs[2]


def test_expectations_match_the_mean_of_many_trajectories(problem):
    model, old, penalty = problem
    dynamics, cost, start = model.dynamics, model.cost, model.start
    other = Controller(penalty.gain, penalty.offset, 2.0 * old.covariance)
    noise = jnp.linalg.cholesky(dynamics.covariance)

    def trajectory(key):
        start_key, act_key, *keys = jax.random.split(key, 2 + _HORIZON)
        state = jax.random.multivariate_normal(start_key, start.mean, start.covariance)
        act_noise = draw_noise(old, act_key)
        costs, apart = [], []
        for t, move_key in enumerate(keys):
            here, there, one = (
                jax.tree.map(lambda leaf: leaf[t], each)  # noqa: B023
                for each in (old, other, dynamics)
            )
            action = here.mean(state) + act_noise[t]
            density = jax.scipy.stats.multivariate_normal.logpdf
            apart.append(
                density(action, here.mean(state), here.covariance)
                - density(action, there.mean(state), there.covariance)
            )
            state = next_state(one, state, action, _SHIFT)
            state = state.at[:_DYNAMIC].add(noise[t] @ jax.random.normal(move_key, (_DYNAMIC,)))
            observed = state[:_OBSERVED]
            costs.append(
                0.5 * observed @ cost.hessian[t] @ observed
                + cost.gradient[t] @ observed
                + cost.constant[t]
            )
        return jnp.stack(costs), jnp.stack(apart)

    costs, apart = jax.jit(jax.vmap(trajectory))(jax.random.split(jax.random.key(1), 40_000))
    expected = expectations(model, old, other)

    for drawn, exact in ((costs, expected.cost), (apart, expected.divergence)):
        error = 4.0 * np.std(drawn, axis=0) / np.sqrt(len(drawn))
        assert np.all(np.abs(np.mean(drawn, axis=0) - exact) < error + 1e-3)


def test_divergence_of_a_controller_from_itself_is_zero(problem):
    model, old, _ = problem
    here = jax.tree.map(lambda leaf: leaf[0], old)

    assert float(divergence(here, here, model.start)) == pytest.approx(0.0, abs=1e-5)


def test_independent_problems_are_solved_independently(problem):
    model, old, penalty = problem
    cost, dense = model.cost, _as_dense(model.dynamics)
    start = _point(model.start.mean)

    def twice(array, axes):
        """Two copies, the second beside or below the first."""
        sizes = [(0, array.shape[axis] if axis in axes else 0) for axis in range(array.ndim)]
        before = [(size, 0) for _, size in sizes]
        return jnp.pad(array, sizes) + jnp.pad(array, before)

    both_dynamics = Dynamics(*(twice(f, tuple(range(1, f.ndim))) for f in dense))
    whole_cost = Cost(
        jnp.pad(cost.hessian, ((0, 0), (0, _SIZE - _OBSERVED), (0, _SIZE - _OBSERVED))),
        jnp.pad(cost.gradient, ((0, 0), (0, _SIZE - _OBSERVED))),
        cost.constant,
    )
    both_cost = Cost(
        twice(whole_cost.hessian, (1, 2)), twice(whole_cost.gradient, (1,)), 2.0 * cost.constant
    )
    both_old = Controller(*(twice(f, tuple(range(1, f.ndim))) for f in old))
    both_penalty = _lqg.PolicyPenalty(
        twice(penalty.gain, (1, 2)),
        twice(penalty.offset, (1,)),
        penalty.weight,
        twice(penalty.multiplier, (1,)),
    )
    both_start = _point(jnp.concatenate([start.mean, start.mean]))

    part = _lqg.improve(Model(dense, whole_cost, start, _SIZE), old, penalty, 2.0)
    both_model = Model(both_dynamics, both_cost, both_start, 2 * _SIZE)
    both = _lqg.improve(both_model, both_old, both_penalty, 4.0)

    np.testing.assert_allclose(both.cost, 2.0 * part.cost, rtol=1e-3)
    for whole, half in zip(both.controller, part.controller, strict=True):
        expected = twice(half, tuple(range(1, half.ndim)))
        np.testing.assert_allclose(whole, expected, rtol=2e-3, atol=2e-3)
