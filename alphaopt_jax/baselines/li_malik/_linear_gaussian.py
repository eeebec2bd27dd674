"""Time-varying linear-Gaussian controllers and dynamics, and their expected cost.

A state `[n]` has `p` *dynamic* entries, which move by fitted dynamics, followed by *shift* entries,
which form a shift register: the next value of a shift entry is the current value of the entry
`shift` places before it. A history of observations is such a register. With `p = n` there are no
shift entries. Known shifts cost no multiplications: the products below have size `p n²` instead of
`n³`.

Source: Levine & Abbeel 2014, *Learning Neural Network Policies with Guided Policy Search under
Unknown Dynamics*, section 3. The shift register is not in the paper.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from alphaopt_jax.baselines.li_malik import _linalg


class Controller(NamedTuple):
    """Actions N(K_t s + k_t, G_t) at T steps; fields of one step lack the first axis.

    Attributes:
      gain: K, `float32[T, a, n]`.
      offset: k, `float32[T, a]`.
      covariance: G, `float32[T, a, a]`.
    """

    gain: chex.Array
    offset: chex.Array
    covariance: chex.Array

    def mean(self, state: chex.Array) -> chex.Array:
        """Returns the mean action `float32[..., a]` of one step in states `float32[..., n]`."""
        return state @ self.gain.T + self.offset


class Dynamics(NamedTuple):
    """Next dynamic entries y, N(A_t y + B_t action + c_t, F_t), at T steps.

    Attributes:
      transition: A, `float32[T, p, p]`.
      control: B, `float32[T, p, a]`.
      constant: c, `float32[T, p]`.
      covariance: F, `float32[T, p, p]`.
    """

    transition: chex.Array
    control: chex.Array
    constant: chex.Array
    covariance: chex.Array


class Cost(NamedTuple):
    """½ yᵀC_t y + c_tᵀy + h_t, where y is the first `m` entries of the state *after* step t.

    The state before the first step is given, and has no cost.

    Attributes:
      hessian: C, `float32[T, m, m]`, positive semidefinite.
      gradient: c, `float32[T, m]`.
      constant: h, `float32[T]`.
    """

    hessian: chex.Array
    gradient: chex.Array
    constant: chex.Array


class Gaussian(NamedTuple):
    """A distribution of states.

    Attributes:
      mean: `float32[n]`.
      covariance: `float32[n, n]`.
    """

    mean: chex.Array
    covariance: chex.Array


@dataclasses.dataclass(frozen=True)
class Model:
    """A fitted model of T steps.

    Attributes:
      dynamics: Dynamics at each step.
      cost: Cost of the states after each step.
      start: Distribution of the first state.
      shift: Places by which the shift entries move in a step.
    """

    dynamics: Dynamics
    cost: Cost
    start: Gaussian
    shift: int


class Expectations(NamedTuple):
    """Expectations at each of T steps.

    Attributes:
      cost: Cost of the state after the step, `float32[T]`.
      divergence: Kullback-Leibler divergence from another controller, in nats, `float32[T]`.
      action: Mean action, `float32[T, a]`.
      state: Mean of the last state, `float32[n]`.
    """

    cost: chex.Array
    divergence: chex.Array
    action: chex.Array
    state: chex.Array


def draw_noise(controller: Controller, key: chex.PRNGKey) -> chex.Array:
    """Draws the deviations of one trajectory's actions from their means, `float32[T, a]`.

    Consumes `key`.
    """
    factors = jax.vmap(_linalg.cholesky)(controller.covariance)
    return jnp.einsum("tab,tb->ta", factors, jax.random.normal(key, controller.offset.shape))


def shift_source(size: int, num_dynamic: int, shift: int) -> slice:
    """Returns the places in a state from which the next state's shift entries are copied.

    Args:
      size: n.
      num_dynamic: p.
      shift: Places by which the shift entries move.

    Example:
      >>> state = list("xghij")  # A location and four observations, the latest first.
      >>> state[shift_source(size=5, num_dynamic=2, shift=1)]
      ['g', 'h', 'i']
    """
    return slice(num_dynamic - shift, size - shift) if num_dynamic < size else slice(0, 0)


def next_state(dynamics: Dynamics, state: chex.Array, action: chex.Array, shift: int) -> chex.Array:
    """Returns the mean of the next state, `float32[n]`.

    Example:
      >>> import jax.numpy as jnp
      >>> eye = jnp.eye(2)
      >>> add = Dynamics(eye, jnp.ones((2, 1)), jnp.zeros(2), 0.0 * eye)
      >>> next_state(add, jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([10.0]), shift=1).tolist()
      [11.0, 12.0, 2.0, 3.0]
    """
    num_dynamic = dynamics.transition.shape[-1]
    moved = dynamics.transition @ state[:num_dynamic]
    moved = moved + dynamics.control @ action + dynamics.constant
    return jnp.concatenate([moved, state[shift_source(state.shape[0], num_dynamic, shift)]])


def closed_loop(dynamics: Dynamics, gain: chex.Array) -> chex.Array:
    """Returns the Jacobian of the next dynamic entries in the state under a controller.

    Args:
      dynamics: Dynamics of one step.
      gain: Gain of the controller at that step, `float32[a, n]`.

    Returns:
      `float32[p, n]`.
    """
    num_dynamic = dynamics.transition.shape[-1]
    return (dynamics.control @ gain).at[:, :num_dynamic].add(dynamics.transition)


def predict(dynamics: Dynamics, controller: Controller, states: Gaussian, shift: int) -> Gaussian:
    """Returns the distribution of states after one step.

    Args:
      dynamics: Dynamics of the step.
      controller: Controller of the step.
      states: Distribution of states before the step.
      shift: Places by which the shift entries move.
    """
    matrix = closed_loop(dynamics, controller.gain)
    num_dynamic, size = matrix.shape
    source = shift_source(size, num_dynamic, shift)
    control = dynamics.control
    mean = jnp.concatenate(
        [
            matrix @ states.mean + control @ controller.offset + dynamics.constant,
            states.mean[source],
        ]
    )
    moved = matrix @ states.covariance
    top = moved @ matrix.T + control @ controller.covariance @ control.T + dynamics.covariance
    side = moved[:, source]
    covariance = jnp.block([[top, side], [side.T, states.covariance[source, source]]])
    return Gaussian(mean, covariance)


def divergence(controller: Controller, other: Controller, states: Gaussian) -> chex.Array:
    """Returns the expected divergence KL(controller ‖ other) at one step, in nats.

    Args:
      controller: Controller of one step.
      other: Another controller of the same step.
      states: Distribution of states before the step.

    Returns:
      `float32[]`.

    Example:
      >>> import jax.numpy as jnp
      >>> one = jnp.eye(1)
      >>> still = Controller(0.0 * one, jnp.zeros(1), one)
      >>> pushing = still._replace(offset=jnp.array([2.0]))
      >>> float(divergence(pushing, still, Gaussian(jnp.zeros(1), one)))
      2.0
    """
    gain = controller.gain - other.gain
    difference = gain @ states.mean + controller.offset - other.offset
    spread = controller.covariance + gain @ states.covariance @ gain.T
    spread = spread + jnp.outer(difference, difference)
    size = controller.offset.shape[-1]
    precision, other_log_determinant = _linalg.inverse(other.covariance)
    _, log_determinant = _linalg.inverse(controller.covariance)
    return 0.5 * (jnp.sum(precision * spread) - size + other_log_determinant - log_determinant)


def expectations(model: Model, controller: Controller, other: Controller) -> Expectations:
    """Returns the exact expectations of a linear-Gaussian model under a controller.

    Args:
      model: The model.
      controller: The controller that acts, at T steps.
      other: The controller that it is compared with.
    """

    def step(states: Gaussian, inputs: tuple) -> tuple[Gaussian, tuple]:
        dynamics, controller, other, cost = inputs
        kl = divergence(controller, other, states)
        action = controller.mean(states.mean)
        states = predict(dynamics, controller, states, model.shift)
        return states, (expected_cost(cost, states), kl, action)

    states, (costs, divergences, actions) = jax.lax.scan(
        step, model.start, (model.dynamics, controller, other, model.cost)
    )
    return Expectations(costs, divergences, actions, states.mean)


def expected_cost(cost: Cost, states: Gaussian) -> chex.Array:
    """Returns the expected cost `float32[]` of states after one step."""
    size = cost.gradient.shape[-1]
    mean, covariance = states.mean[:size], states.covariance[:size, :size]
    at_mean = 0.5 * mean @ cost.hessian @ mean + cost.gradient @ mean + cost.constant
    return at_mean + 0.5 * jnp.sum(cost.hessian * covariance)
