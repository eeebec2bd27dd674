"""Models of the samples, and the policy of the controllers, fitted in the search of 2016."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from alphaopt_jax.baselines.li_malik import _history, _linalg, _policies, _regression, _search
from alphaopt_jax.baselines.li_malik._config import Config2016
from alphaopt_jax.baselines.li_malik._linear_gaussian import Controller, Cost, Dynamics
from alphaopt_jax.baselines.li_malik._rollouts_2016 import Trajectory
from alphaopt_jax.baselines.li_malik._search import PolicyState


class Demonstrations(NamedTuple):
    """Controllers for the policy to imitate.

    Attributes:
      samples: Trajectories with leading axes `[M, N]`, whose states are the inputs.
      controllers: Controllers with a leading axis `[M]`, whose mean actions are the targets.
      valid: Functions to learn from, `bool[M]`.
    """

    samples: Trajectory
    controllers: Controller
    valid: chex.Array


def fit_dynamics(samples: Trajectory, config: Config2016) -> Dynamics:
    """Fits the dynamics of the location and the latest observation.

    The location moves by the action, exactly. The new observation is regressed on the location, the
    latest gradient and the action. The latest change of the objective is not an input: given these,
    it is redundant, and when it becomes tiny it would amplify errors of the fit. All older entries
    of the state only shift.

    Args:
      samples: N trajectories, with a leading axis `[N]`.
      config: Hyperparameters.

    Returns:
      Dynamics of 2d + 1 entries.
    """
    dimension = samples.actions.shape[-1]
    size = 2 * dimension + 1
    now, following = samples.states[:, :-1, :size], samples.states[:, 1:, dimension:size]
    regression = _regression.fit(
        jnp.concatenate([jnp.delete(now, dimension, axis=-1), samples.actions, following], axis=-1),
        3 * dimension,
        config.prior,
    )
    of_state, of_action = jnp.split(regression.coefficients, [2 * dimension], axis=-1)
    observed = jnp.insert(of_state, dimension, 0.0, axis=-1)
    horizon = samples.actions.shape[1]
    location = jnp.broadcast_to(jnp.eye(dimension, size), (horizon, dimension, size))
    action = jnp.broadcast_to(jnp.eye(dimension), (horizon, dimension, dimension))
    return Dynamics(
        transition=jnp.concatenate([location, observed], axis=1),
        control=jnp.concatenate([action, of_action], axis=1),
        constant=jnp.pad(regression.constant, ((0, 0), (dimension, 0))),
        covariance=jnp.pad(regression.covariance, ((0, 0), (dimension, 0), (dimension, 0))),
    )


def fit_cost(samples: Trajectory, config: Config2016) -> Cost:
    """Fits the objective after each step as a quadratic of the location.

    The Hessian is the regression of gradients on locations, made positive semidefinite. Gradient
    and constant match the mean gradient and the mean objective of the samples.

    Args:
      samples: N trajectories, with a leading axis `[N]`.
      config: Hyperparameters.
    """
    dimension = samples.actions.shape[-1]
    locations, gradients = samples.states[:, 1:, :dimension], samples.gradients[:, 1:]
    regression = _regression.fit(
        jnp.concatenate([locations, gradients], axis=-1), dimension, config.prior
    )
    hessian = jax.vmap(_linalg.positive_part)(regression.coefficients)
    center, slope = jnp.mean(locations, axis=0), jnp.mean(gradients, axis=0)
    gradient = slope - jnp.einsum("tij,tj->ti", hessian, center)
    curved = 0.5 * jnp.einsum("nti,tij,ntj->nt", locations, hessian, locations)
    rest = samples.objectives[:, 1:] - curved - jnp.einsum("nti,ti->nt", locations, gradient)
    return Cost(hessian, gradient, jnp.mean(rest, axis=0))


def linearize(
    params: chex.ArrayTree, states: chex.Array, dimension: int
) -> tuple[chex.Array, chex.Array]:
    """Linearizes the policy around the mean state of the samples.

    Args:
      params: Parameters of the policy.
      states: `float32[N, T, n]`.
      dimension: d.

    Returns:
      Gain `float32[T, d, n]` and offset `float32[T, d]`, which match the mean of the policy's
      actions over the samples.
    """

    def action(state: chex.Array, num_points: chex.Array) -> chex.Array:
        features = _history.features_of_state(state, num_points, dimension)
        return _policies.step_2016(params, features)

    center = jnp.mean(states, axis=0)
    num_points = jnp.arange(1, states.shape[1] + 1)
    gain = jax.vmap(jax.jacrev(action))(center, num_points)
    actions = jax.vmap(jax.vmap(action), in_axes=(0, None))(states, num_points)
    offset = jnp.mean(actions, axis=0) - jnp.einsum("tan,tn->ta", gain, center)
    return gain, offset


def fit_policy(
    policy: PolicyState,
    demonstrations: Demonstrations,
    learning_rate: chex.Numeric,
    key: chex.PRNGKey,
    config: Config2016,
) -> PolicyState:
    """Trains the policy on the controllers' mean actions, by squared Mahalanobis distance.

    Args:
      policy: The policy.
      demonstrations: States and controllers.
      learning_rate: Learning rate of Adam.
      key: Consumed.
      config: Hyperparameters.

    Returns:
      The trained policy.
    """
    samples, controllers, valid = demonstrations
    states = samples.states[:, :, :-1]
    count, trajectories, horizon, _ = states.shape
    dimension = samples.actions.shape[-1]
    targets = jnp.einsum("mtas,mnts->mnta", controllers.gain, states)
    targets += controllers.offset[:, None]
    precisions, _ = jax.vmap(jax.vmap(_linalg.inverse))(controllers.covariance)

    def loss(network: chex.ArrayTree, key: chex.PRNGKey) -> chex.Array:
        selected = jax.random.randint(
            key, (config.policy_fit.batch_size,), 0, count * trajectories * horizon
        )
        function, trajectory, step = jnp.unravel_index(selected, states.shape[:3])
        features = jax.vmap(_history.features_of_state, in_axes=(0, 0, None))(
            states[function, trajectory, step], step + 1, dimension
        )
        actions = _policies.step_2016(policy.params | {"network": network}, features)
        errors = actions - targets[function, trajectory, step]
        distances = jnp.einsum("ba,bac,bc->b", errors, precisions[function, step], errors)
        return jnp.mean(jnp.where(valid[function], distances, 0.0))

    keys = jax.random.split(key, config.policy_fit.num_updates)
    return _search.fit_network(policy, loss, learning_rate, keys)


def features_of_states(states: chex.Array, dimension: int) -> chex.Array:
    """Maps states `float32[M, N, T, n]` to the policy's features, `float32[M, N, T, F]`."""
    over_time = jax.vmap(_history.features_of_state, in_axes=(0, 0, None))
    over_all = jax.vmap(jax.vmap(over_time, in_axes=(0, None, None)), in_axes=(0, None, None))
    return over_all(states, jnp.arange(1, states.shape[2] + 1), dimension)
