"""Time-varying linear-Gaussian controllers and dynamics, and what is to be expected of them.

A state `[n]` is a *head* of its first `p` entries, which move by dynamics that are fitted, and a
*tail* that only remembers: a tail entry at the next step is the entry `shift` places before it now.
A history of observations is such a register. With `p = n` there is no tail, and everything is
plain. What is known to be a shift costs no multiplication: the products below are of size
`p n²` in place of `n³`.

Source: Levine & Abbeel 2014, *Learning Neural Network Policies with Guided Policy Search under
Unknown Dynamics*, section 3; the shift register is ours.
"""

from __future__ import annotations

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
        """Mean action `float32[..., a]` at one step, in states `float32[..., n]`."""
        return state @ self.gain.T + self.offset


class Dynamics(NamedTuple):
    """The next head, N(A_t head + B_t action + c_t, F_t), at T steps.

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

    The state before the first step is given, so that its cost is of no concern.

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


class Expectations(NamedTuple):
    """What is to be expected at each of T steps.

    Attributes:
      cost: `float32[T]`, of the state after the step.
      divergence: `float32[T]`, Kullback-Leibler divergence from another controller, in nats.
      action: `float32[T, a]`, the mean action.
      state: `float32[n]`, mean of the last state.
    """

    cost: chex.Array
    divergence: chex.Array
    action: chex.Array
    state: chex.Array


def draw_noise(controller: Controller, key: chex.PRNGKey) -> chex.Array:
    """Draws what one trajectory's actions differ by from their means, `float32[T, a]`.

    Consumes `key`.
    """
    factors = jax.vmap(_linalg.cholesky)(controller.covariance)
    return jnp.einsum("tab,tb->ta", factors, jax.random.normal(key, controller.offset.shape))


def tail_source(size: int, head: int, shift: int) -> slice:
    """Where the tail of the next state is found in this one.

    Args:
      size: n.
      head: p.
      shift: By how many places the tail moves in a step.

    Example:
      >>> state = list("xghij")  # A location, and four observations, the latest first.
      >>> state[tail_source(size=5, head=2, shift=1)]
      ['g', 'h', 'i']
    """
    return slice(head - shift, size - shift) if head < size else slice(0, 0)


def next_state(dynamics: Dynamics, state: chex.Array, action: chex.Array, shift: int) -> chex.Array:
    """The state `float32[n]` that is expected after one step.

    Example:
      >>> import jax.numpy as jnp
      >>> eye = jnp.eye(2)
      >>> add = Dynamics(eye, jnp.ones((2, 1)), jnp.zeros(2), 0.0 * eye)
      >>> next_state(add, jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([10.0]), shift=1).tolist()
      [11.0, 12.0, 2.0, 3.0]
    """
    head = dynamics.transition.shape[-1]
    moved = dynamics.transition @ state[:head] + dynamics.control @ action + dynamics.constant
    return jnp.concatenate([moved, state[tail_source(state.shape[0], head, shift)]])


def closed_loop(dynamics: Dynamics, gain: chex.Array) -> chex.Array:
    """How the next head depends on the whole state under a controller, `float32[p, n]`."""
    head = dynamics.transition.shape[-1]
    return (dynamics.control @ gain).at[:, :head].add(dynamics.transition)


def predict(dynamics: Dynamics, controller: Controller, states: Gaussian, shift: int) -> Gaussian:
    """The distribution of states after one step.

    Args:
      dynamics: Of the step.
      controller: Of the step.
      states: Before it.
      shift: By how many places the tail moves.
    """
    matrix = closed_loop(dynamics, controller.gain)
    head, size = matrix.shape
    source = tail_source(size, head, shift)
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
    """Expected Kullback-Leibler divergence KL(controller ‖ other) at one step, in nats.

    Args:
      controller: At one step.
      other: At the same step.
      states: Where both act.

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
    shift = gain @ states.mean + controller.offset - other.offset
    spread = controller.covariance + gain @ states.covariance @ gain.T + jnp.outer(shift, shift)
    size = controller.offset.shape[-1]
    precision, other_volume = _linalg.inverse(other.covariance)
    _, volume = _linalg.inverse(controller.covariance)
    return 0.5 * (jnp.sum(precision * spread) - size + other_volume - volume)


def expectations(
    dynamics: Dynamics,
    controller: Controller,
    other: Controller,
    cost: Cost,
    start: Gaussian,
    shift: int,
) -> Expectations:
    """Follows a controller through the dynamics.

    Args:
      dynamics: At T steps.
      controller: The one that acts.
      other: The one that it is compared with.
      cost: Of the states after each step.
      start: The first states.
      shift: By how many places the tail moves.

    Returns:
      What is to be expected, exactly, of the linear-Gaussian system.
    """

    def step(states: Gaussian, inputs: tuple) -> tuple[Gaussian, tuple]:
        dynamics, controller, other, cost = inputs
        apart = divergence(controller, other, states)
        action = controller.mean(states.mean)
        states = predict(dynamics, controller, states, shift)
        return states, (expected_cost(cost, states), apart, action)

    states, (costs, divergences, actions) = jax.lax.scan(
        step, start, (dynamics, controller, other, cost)
    )
    return Expectations(costs, divergences, actions, states.mean)


def expected_cost(cost: Cost, states: Gaussian) -> chex.Array:
    """The cost `float32[]` to be expected of states after one step."""
    size = cost.gradient.shape[-1]
    mean, covariance = states.mean[:size], states.covariance[:size, :size]
    at_mean = 0.5 * mean @ cost.hessian @ mean + cost.gradient @ mean + cost.constant
    return at_mean + 0.5 * jnp.sum(cost.hessian * covariance)
