"""Models of the samples, and the policy of the controllers, fitted in the search of 2017."""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax.baselines.li_malik import _policies, _regression, _search
from alphaopt_jax.baselines.li_malik._config import Config2017
from alphaopt_jax.baselines.li_malik._linear_gaussian import (
    Controller,
    Cost,
    Dynamics,
    Gaussian,
    Model,
)
from alphaopt_jax.baselines.li_malik._rollouts_2017 import Samples
from alphaopt_jax.baselines.li_malik._search import PolicyState


class Demonstrations(NamedTuple):
    """Controllers for the policy to imitate.

    Attributes:
      samples: Trajectories with a leading axis `[S]`, whose states are the inputs.
      controllers: Controllers with a leading axis `[G]`, whose mean actions are the targets.
      multipliers: λ / ν, the linear term of the loss, `float32[G, T]`.
    """

    samples: Samples
    controllers: Controller
    multipliers: chex.Array


class GroupSamples(NamedTuple):
    """Samples of C coordinates of one group, from S trajectories.

    Attributes:
      states: Φ, `float32[S, T + 1, C, 76]`.
      gradients: Gradients of the objective, `float32[S, T + 1, C]`.
      actions: `float32[S, T, C]`.
      policy_actions: Mean actions of the policy, `float32[S, T, C]`.
    """

    states: chex.Array
    gradients: chex.Array
    actions: chex.Array
    policy_actions: chex.Array


def fit_cost(samples: Samples) -> chex.Array:
    """Fits the weights of the groups' squared gradients in the cost.

    Nonnegative least squares over all steps and trajectories, of the model objective = constant +
    ½ Σ_g weight_g Σ_{j in g} y_j², with y_j the objective's gradient.

    Args:
      samples: Trajectories with a leading axis `[S]`.

    Returns:
      `float32[G]`.
    """
    squares = samples.squared_gradients
    regressors = 0.5 * squares.reshape(-1, squares.shape[-1])
    scale = jnp.maximum(jnp.std(regressors, axis=0), 1e-30)
    standard = (regressors - jnp.mean(regressors, axis=0)) / scale
    targets = samples.objectives.ravel() - jnp.mean(samples.objectives)
    count = standard.shape[0]
    # The ridge distributes the weight over groups with correlated gradients.
    square = standard.T @ standard / count + 0.1 * jnp.eye(standard.shape[1])
    side = standard.T @ targets / count

    def update_group(index: chex.Array, weights: chex.Array) -> chex.Array:
        rest = side[index] - square[index] @ weights + square[index, index] * weights[index]
        return weights.at[index].set(jnp.maximum(rest / square[index, index], 0.0))

    def sweep(_: chex.Array, weights: chex.Array) -> chex.Array:
        return jax.lax.fori_loop(0, weights.shape[0], update_group, weights)

    return jax.lax.fori_loop(0, 50, sweep, jnp.zeros_like(side)) / scale


def fit_policy(
    policy: PolicyState,
    demonstrations: Demonstrations,
    learning_rate: chex.Numeric,
    key: chex.PRNGKey,
    config: Config2017,
) -> PolicyState:
    """Trains the policy on the controllers' mean actions.

    The loss is half the squared distance, divided by the controllers' variance, plus the linear
    term of the multipliers.

    Args:
      policy: The policy.
      demonstrations: Observations and controllers.
      learning_rate: Learning rate of Adam.
      key: Consumed.
      config: Hyperparameters.

    Returns:
      The trained policy.
    """
    samples, controllers, multipliers = demonstrations
    targets = controller_actions(controllers, samples)
    variances = controllers.covariance[:, :, 0, 0]
    shape = (targets.shape[0], *targets.shape[2:])

    def loss(network: chex.ArrayTree, key: chex.PRNGKey) -> chex.Array:
        selected = jax.random.randint(key, (config.policy_fit.batch_size,), 0, int(np.prod(shape)))
        trajectory, group, coordinate = jnp.unravel_index(selected, shape)
        # Advanced indices move to the front: `[batch, T, ...]`.
        observations = samples.observations[trajectory, :, group, coordinate]
        target = targets[trajectory, :, group, coordinate]
        actions = _actions(policy.params | {"network": network}, observations.swapaxes(0, 1)).T
        distance = 0.5 * jnp.square(actions - target) / variances[group]
        return jnp.mean(distance + multipliers[group] * actions)

    keys = jax.random.split(key, config.policy_fit.num_updates)
    # Gradients through 400 steps occasionally explode.
    return _search.fit_network(policy, loss, learning_rate, keys, max_gradient_norm=1.0)


def fit_model(samples: GroupSamples, cost_weight: chex.Array, config: Config2017) -> Model:
    """Fits dynamics and cost of one group.

    The state of the model is Φ with the objective's gradient as a last entry, which only the cost
    uses.

    Args:
      samples: Samples of the group.
      cost_weight: Weight of squared gradients in the cost, `float32[]`.
      config: Hyperparameters.
    """
    size, horizon = samples.states.shape[-1], config.horizon
    states = jnp.concatenate([samples.states, samples.gradients[..., None]], axis=-1)
    moves = _regression.fit(
        pool(samples.states[:, :-1], samples.actions[..., None], states[:, 1:]),
        size + 1,
        config.prior,
    )
    dynamics = Dynamics(
        transition=pad_gain(moves.coefficients[:, :, :size]),
        control=moves.coefficients[:, :, size:],
        constant=moves.constant,
        covariance=moves.covariance,
    )
    cost = Cost(
        hessian=jnp.zeros((horizon, size + 1, size + 1)).at[:, -1, -1].set(cost_weight),
        gradient=jnp.zeros((horizon, size + 1)),
        constant=jnp.zeros(horizon),
    )
    first = states[:, 0].reshape(-1, size + 1)
    start = Gaussian(jnp.mean(first, axis=0), jnp.cov(first, rowvar=False))
    return Model(dynamics, cost, start, shift=size + 1)


def pool(*values: chex.Array) -> chex.Array:
    """Concatenates values `[S, T, C, ...]`, and reshapes them to `[S C, T, v]`."""
    joined = jnp.concatenate(values, axis=-1)
    return jnp.moveaxis(joined, 2, 1).reshape(-1, joined.shape[1], joined.shape[-1])


def pad_gain(gain: chex.Array) -> chex.Array:
    """Extends a gain on Φ to the whole state, with zeros for the gradient, `float32[..., 77]`."""
    return jnp.pad(gain, ((0, 0), (0, 0), (0, 1)))


def controller_actions(controllers: Controller, samples: Samples) -> chex.Array:
    """Returns the mean actions of the controllers in the samples' states, `float32[S, T, G, C]`."""
    states = samples.states[:, :-1]
    actions = jnp.einsum("gtn,stgcn->stgc", controllers.gain[:, :, 0], states)
    return actions + controllers.offset[:, :, 0].T[:, :, None]


def policy_actions(params: chex.ArrayTree, samples: Samples) -> chex.Array:
    """Returns the mean actions of the policy along the samples, `float32[S, T, G, C]`."""
    return jnp.moveaxis(_actions(params, jnp.moveaxis(samples.observations, 1, 0)), 0, 1)


def _actions(params: chex.ArrayTree, observations: chex.Array) -> chex.Array:
    """From observations `float32[T, ..., 3]` to mean actions of the policy, `float32[T, ...]`."""
    width = params["network"]["output"]["kernel"].shape[0]
    carry = _policies.zero_carry(observations.shape[1:-1], width)
    return jax.lax.scan(functools.partial(_policies.step_2017, params), carry, observations)[1]
