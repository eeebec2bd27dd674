"""The optimal controller near the last one: a linear-quadratic regulator in a trust region.

The problem is solved over time-varying linear-Gaussian controllers ψ:

    min Σ_t E[c(s_{t+1}) − λ_tᵀ a_t] + ν_t KL(ψ_t ‖ π_t)    with   Σ_t KL(ψ_t ‖ ψ_t^old) ≤ ε,

where π_t is the policy, linearized around the mean state. With a multiplier η for the bound, each
step is a quadratic minus (η + ν_t) times an entropy, and dynamic programming solves it exactly: the
mean action minimizes the quadratic Q, and its covariance is (η + ν_t) Q_aa⁻¹. The divergence
decreases in η, which is found by bisection.

The policy's covariance is taken to be that of the old controller. The papers leave it open, at test
time only the mean acts, and differences of means are then measured on each function's own scale.

Source: Levine & Abbeel 2014, sections 4 and 5; Li & Malik 2016, section 3.4; Li & Malik 2017,
section 3.3 (the linear term λ).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from alphaopt_jax.baselines.li_malik import _linalg
from alphaopt_jax.baselines.li_malik._config import TrustRegion
from alphaopt_jax.baselines.li_malik._linear_gaussian import (
    Controller,
    Model,
    closed_loop,
    expectations,
    shift_source,
)

# Range of η, in units of the cost. 16 bisections of the logarithm find it to 0.1 %.
_MIN_WEIGHT, _MAX_WEIGHT = 1e-9, 1e9
_BISECTIONS = 16


class PolicyPenalty(NamedTuple):
    """The terms of the problem that hold the controller near the policy.

    Attributes:
      gain: Gain of the linearized policy, `float32[T, a, n]`.
      offset: Its offset, `float32[T, a]`.
      weight: ν, weight of the divergence from the policy, `float32[T]`.
      multiplier: λ, multiplier of the mean action, `float32[T, a]`.
    """

    gain: chex.Array
    offset: chex.Array
    weight: chex.Array
    multiplier: chex.Array


class Improved(NamedTuple):
    """Solution of the problem.

    Attributes:
      controller: The optimal controller at T steps.
      bound_weight: η, `float32[]`.
      divergence: Σ_t KL(ψ_t ‖ ψ_t^old), `float32[]`.
      cost: Cost expected by the model, summed over T steps, `float32[]`.
    """

    controller: Controller
    bound_weight: chex.Array
    divergence: chex.Array
    cost: chex.Array


def no_penalty(controller: Controller) -> PolicyPenalty:
    """Returns a penalty of zero."""
    return PolicyPenalty(
        gain=jnp.zeros_like(controller.gain),
        offset=jnp.zeros_like(controller.offset),
        weight=jnp.zeros_like(controller.offset[..., 0]),
        multiplier=jnp.zeros_like(controller.offset),
    )


def backward_pass(
    model: Model, old: Controller, penalty: PolicyPenalty, bound_weight: chex.Array
) -> Controller:
    """Returns the optimal controller for a given multiplier η.

    An action is a change added to the weighted mean of the old controller's and the policy's mean
    actions, with the weights of their divergences. The references then only contribute penalties of
    the change, and of states in which they disagree. This avoids differences of large numbers,
    which float32 would not resolve.

    Args:
      model: The fitted model.
      old: ψ^old; its covariance is also used for the policy.
      penalty: Penalty of the distance to the policy.
      bound_weight: η, `float32[]`, positive.

    Returns:
      The controller at T steps.
    """
    size, num_dynamic = old.gain.shape[-1], model.dynamics.transition.shape[-1]
    source = shift_source(size, num_dynamic, model.shift)
    observed = model.cost.gradient.shape[-1]

    def step(value: tuple[chex.Array, chex.Array], inputs: Any) -> tuple[Any, Controller]:
        dynamics, cost, old, penalty = inputs
        # Hessian and gradient of the cost-to-go in the state after this step.
        matrix = value[0].at[:observed, :observed].add(cost.hessian)
        vector = value[1].at[:observed].add(cost.gradient)
        weight = bound_weight + penalty.weight
        precision, _ = _linalg.inverse(old.covariance)
        gain_difference, offset_difference = penalty.gain - old.gain, penalty.offset - old.offset
        gain = old.gain + penalty.weight / weight * gain_difference
        offset = old.offset + penalty.weight / weight * offset_difference

        move = closed_loop(dynamics, gain)
        drift = dynamics.control @ offset + dynamics.constant
        slope = vector + matrix[:, :num_dynamic] @ drift
        # Shift entries only contribute copied rows: `half` plus its transpose is the whole product
        # except for the block of the shift entries.
        half = 0.5 * matrix[:num_dynamic, :num_dynamic] @ move
        curve = 2.0 * half
        half = half.at[:, source].add(matrix[:num_dynamic, num_dynamic:])
        curve = curve.at[:, source].add(matrix[:num_dynamic, num_dynamic:])
        product = move.T @ half
        state_matrix = (
            (product + product.T).at[source, source].add(matrix[num_dynamic:, num_dynamic:])
        )
        state_vector = (move.T @ slope[:num_dynamic]).at[source].add(slope[num_dynamic:])
        state_vector -= gain.T @ penalty.multiplier

        between = bound_weight * penalty.weight / weight * precision @ gain_difference
        state_matrix += gain_difference.T @ between
        state_vector += between.T @ offset_difference

        change_matrix = weight * precision
        change_matrix += dynamics.control.T @ matrix[:num_dynamic, :num_dynamic] @ dynamics.control
        change_state = dynamics.control.T @ curve
        change_vector = dynamics.control.T @ slope[:num_dynamic] - penalty.multiplier
        inverted, _ = _linalg.inverse(change_matrix)
        change_gain, change_offset = -inverted @ change_state, -inverted @ change_vector
        state_matrix += change_state.T @ change_gain
        state_vector += change_state.T @ change_offset
        controller = Controller(gain + change_gain, offset + change_offset, weight * inverted)
        return (0.5 * (state_matrix + state_matrix.T), state_vector), controller

    end = jnp.zeros((size, size)), jnp.zeros(size)
    inputs = (model.dynamics, model.cost, old, penalty)
    _, controller = jax.lax.scan(step, end, inputs, reverse=True)
    return controller


def improve(model: Model, old: Controller, penalty: PolicyPenalty, bound: chex.Array) -> Improved:
    """Returns the optimal controller with a divergence of at most ε from the old one.

    Args:
      model: The fitted model.
      old: ψ^old.
      penalty: Penalty of the distance to the policy.
      bound: ε, `float32[]`, in nats.

    Returns:
      The solution. Its divergence is ε, or smaller if the smallest η is feasible.
    """

    def solve(log_weight: chex.Array) -> tuple[Controller, chex.Array, chex.Array]:
        controller = backward_pass(model, old, penalty, jnp.exp(log_weight))
        expected = expectations(model, controller, old)
        return controller, jnp.sum(expected.divergence), jnp.sum(expected.cost)

    def bisect(_: chex.Array, interval: tuple[chex.Array, chex.Array]) -> Any:
        low, high = interval
        middle = 0.5 * (low + high)
        # A small η can overflow; NaN counts as infeasible.
        feasible = solve(middle)[1] <= bound
        return jnp.where(feasible, low, middle), jnp.where(feasible, middle, high)

    interval = jnp.log(jnp.float32(_MIN_WEIGHT)), jnp.log(jnp.float32(_MAX_WEIGHT))
    _, log_weight = jax.lax.fori_loop(0, _BISECTIONS, bisect, interval)
    controller, divergence, cost = solve(log_weight)
    return Improved(controller, jnp.exp(log_weight), divergence, cost)


def adapt_bound(
    bound: chex.Array, predicted: chex.Array, actual: chex.Array, trust_region: TrustRegion
) -> chex.Array:
    """Reduces a bound ε if the fitted model predicted too large a decrease; else increases it.

    If the decrease of the cost grows linearly with the bound and the model's error quadratically,
    the best bound is the last one times predicted / (2 (predicted − actual)). It changes at most
    5-fold.

    Args:
      bound: The last bound, `float32[...]`.
      predicted: Predicted decrease of the cost, `float32[...]`; 0 keeps the bound.
      actual: Observed decrease of the cost, `float32[...]`.
      trust_region: Limits of the bound.

    Returns:
      `float32[...]`.

    References:
      Levine, Wagener & Abbeel 2015, *Learning Contact-Rich Manipulation Skills with Guided Policy
      Search*, section III.

    Example:
      >>> import jax.numpy as jnp
      >>> predicted, actual = jnp.array([1.0, 1.0, 0.0]), jnp.array([0.0, 0.9, 0.0])
      >>> limits = TrustRegion(max_divergence=10.0)
      >>> adapt_bound(jnp.array([4.0, 4.0, 4.0]), predicted, actual, limits).tolist()
      [2.0, 10.0, 4.0]
    """
    missing = jnp.maximum(predicted - actual, 1e-6 * predicted)
    factor = jnp.where(predicted > 0, predicted / jnp.where(predicted > 0, 2.0 * missing, 1.0), 1.0)
    # A factor that is not finite comes from a divergent step.
    factor = jnp.clip(jnp.where(jnp.isfinite(factor), factor, 0.0), 0.2, 5.0)
    least = trust_region.min_fraction * trust_region.max_divergence
    return jnp.clip(bound * factor, least, trust_region.max_divergence)
