"""The best controller near the last one: a linear-quadratic regulator under a bound on divergence.

What is minimised over time-varying linear-Gaussian controllers ψ is

    Σ_t E[c(s_{t+1}) − λ_tᵀ a_t] + ν_t KL(ψ_t ‖ π_t)    with   Σ_t KL(ψ_t ‖ ψ_t^old) ≤ ε,

where π_t is the policy, made linear about the mean state. With a multiplier η for the bound, each
step is a quadratic minus (η + ν_t) times an entropy, and dynamic programming solves it exactly: the
action's mean minimises the quadratic Q, and its covariance is (η + ν_t) Q_aa⁻¹. The divergence
falls as η grows, and η is found by bisection.

The policy's covariance is taken to be the old controller's: papers leave it open, at test time
the mean acts alone, and differences of means are then measured on each function's own scale.

Source: Levine & Abbeel 2014, sections 4 and 5; Li & Malik 2016, section 3.4; Li & Malik 2017,
section 3.3, from which the linear term λ is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from alphaopt_jax.baselines.li_malik import _linalg
from alphaopt_jax.baselines.li_malik._linear_gaussian import (
    Controller,
    Cost,
    Dynamics,
    Gaussian,
    closed_loop,
    expectations,
    tail_source,
)

_BISECTIONS = 16
# η is sought between these, in units of the cost; 16 halvings of the logarithm find it to 0.1 %.
_LEAST, _MOST = 1e-9, 1e9


class Pull(NamedTuple):
    """What draws the controller towards the policy.

    Attributes:
      gain: Of the policy, made linear, `float32[T, a, n]`.
      offset: Its offset, `float32[T, a]`.
      weight: ν, `float32[T]`, of the divergence from it; 0 leaves the policy out.
      multiplier: λ, `float32[T, a]`, of the mean action.
    """

    gain: chex.Array
    offset: chex.Array
    weight: chex.Array
    multiplier: chex.Array


class Improved(NamedTuple):
    """The controller that solves the bounded problem.

    Attributes:
      controller: At T steps.
      bound_weight: η, `float32[]`.
      divergence: Σ_t KL(ψ_t ‖ ψ_t^old), `float32[]`.
      cost: Expected cost summed over T steps, `float32[]`, by the fitted model.
    """

    controller: Controller
    bound_weight: chex.Array
    divergence: chex.Array
    cost: chex.Array


def no_pull(controller: Controller) -> Pull:
    """A pull towards nothing."""
    return Pull(
        gain=jnp.zeros_like(controller.gain),
        offset=jnp.zeros_like(controller.offset),
        weight=jnp.zeros_like(controller.offset[..., 0]),
        multiplier=jnp.zeros_like(controller.offset),
    )


def backward_pass(
    dynamics: Dynamics,
    cost: Cost,
    old: Controller,
    pull: Pull,
    bound_weight: chex.Array,
    shift: int,
) -> Controller:
    """The best controller where divergence from the old one costs η a nat.

    An action is written as the mean of both references, each weighed by what divergence from it
    costs, plus a change; what is left of the references is then a penalty of the change, and of
    the state where they disagree. Nothing large is subtracted from something as large, which
    single precision would not bear.

    Args:
      dynamics: At T steps.
      cost: Of the states after each of them.
      old: ψ^old, and its covariance the policy's.
      pull: Towards the policy.
      bound_weight: η, `float32[]`, positive.
      shift: By how many places the state's tail moves in a step.

    Returns:
      The controller at T steps.
    """
    size, head = old.gain.shape[-1], dynamics.transition.shape[-1]
    source = tail_source(size, head, shift)
    observed = cost.gradient.shape[-1]

    def step(value: tuple[chex.Array, chex.Array], inputs: Any) -> tuple[Any, Controller]:
        dynamics, cost, old, pull = inputs
        # Hessian and gradient of the cost to come, as a function of the state after this step.
        matrix = value[0].at[:observed, :observed].add(cost.hessian)
        vector = value[1].at[:observed].add(cost.gradient)
        weight = bound_weight + pull.weight
        precision, _ = _linalg.inverse(old.covariance)
        gain_apart, offset_apart = pull.gain - old.gain, pull.offset - old.offset
        gain = old.gain + pull.weight / weight * gain_apart
        offset = old.offset + pull.weight / weight * offset_apart

        move = closed_loop(dynamics, gain)
        drift = dynamics.control @ offset + dynamics.constant
        slope = vector + matrix[:, :head] @ drift
        # The tail takes part only as rows that are copied: `half` plus its transpose is all of
        # the product but the tail's own block.
        half = 0.5 * matrix[:head, :head] @ move
        curve = 2.0 * half
        half = half.at[:, source].add(matrix[:head, head:])
        curve = curve.at[:, source].add(matrix[:head, head:])
        product = move.T @ half
        state_matrix = (product + product.T).at[source, source].add(matrix[head:, head:])
        state_vector = (move.T @ slope[:head]).at[source].add(slope[head:])
        state_vector -= gain.T @ pull.multiplier

        between = bound_weight * pull.weight / weight * precision @ gain_apart
        state_matrix += gain_apart.T @ between
        state_vector += between.T @ offset_apart

        change_matrix = weight * precision
        change_matrix += dynamics.control.T @ matrix[:head, :head] @ dynamics.control
        change_state = dynamics.control.T @ curve
        change_vector = dynamics.control.T @ slope[:head] - pull.multiplier
        inverted, _ = _linalg.inverse(change_matrix)
        change_gain, change_offset = -inverted @ change_state, -inverted @ change_vector
        state_matrix += change_state.T @ change_gain
        state_vector += change_state.T @ change_offset
        controller = Controller(gain + change_gain, offset + change_offset, weight * inverted)
        return (0.5 * (state_matrix + state_matrix.T), state_vector), controller

    end = jnp.zeros((size, size)), jnp.zeros(size)
    _, controller = jax.lax.scan(step, end, (dynamics, cost, old, pull), reverse=True)
    return controller


def improve(
    dynamics: Dynamics,
    cost: Cost,
    old: Controller,
    pull: Pull,
    start: Gaussian,
    bound: chex.Array,
    shift: int,
) -> Improved:
    """The best controller whose divergence from the old one is at most ε.

    Args:
      dynamics: At T steps.
      cost: Of the states after each of them.
      old: ψ^old.
      pull: Towards the policy.
      start: The first states.
      bound: ε, `float32[]`, in nats.
      shift: By how many places the state's tail moves in a step.

    Returns:
      The controller. Its divergence is ε, unless even the least η of the search stays below it.
    """

    def at(log_weight: chex.Array) -> tuple[Controller, chex.Array, chex.Array]:
        controller = backward_pass(dynamics, cost, old, pull, jnp.exp(log_weight), shift)
        expected = expectations(dynamics, controller, old, cost, start, shift)
        return controller, jnp.sum(expected.divergence), jnp.sum(expected.cost)

    def halve(_: chex.Array, interval: tuple[chex.Array, chex.Array]) -> Any:
        low, high = interval
        middle = 0.5 * (low + high)
        # Not a number counts as too far: a tiny η can overflow.
        inside = at(middle)[1] <= bound
        return jnp.where(inside, low, middle), jnp.where(inside, middle, high)

    interval = jnp.log(jnp.float32(_LEAST)), jnp.log(jnp.float32(_MOST))
    _, log_weight = jax.lax.fori_loop(0, _BISECTIONS, halve, interval)
    controller, divergence, cost_sum = at(log_weight)
    return Improved(controller, jnp.exp(log_weight), divergence, cost_sum)


def adapt_bound(
    bound: chex.Array,
    promised: chex.Array,
    gained: chex.Array,
    *,
    least: float,
    most: float,
) -> chex.Array:
    """Lowers a bound where the fitted model promised too much, and raises it again.

    If the improvement grows linearly with the bound and the model's error quadratically, the best
    bound is the last one times promised / (2 (promised − gained)); it is changed 5-fold at most.

    Args:
      bound: The last one, `float32[...]`.
      promised: How much lower the cost was to be, `float32[...]`; 0 if nothing was promised.
      gained: How much lower it is, `float32[...]`.
      least: Least bound.
      most: Greatest bound.

    Returns:
      `float32[...]`.

    References:
      Levine, Wagener & Abbeel 2015, *Learning Contact-Rich Manipulation Skills with Guided Policy
      Search*, section III.

    Example:
      >>> import jax.numpy as jnp
      >>> promised, gained = jnp.array([1.0, 1.0, 0.0]), jnp.array([0.0, 0.9, 0.0])
      >>> adapt_bound(jnp.array([4.0, 4.0, 4.0]), promised, gained, least=0.1, most=10.0).tolist()
      [2.0, 10.0, 4.0]
    """
    missing = jnp.maximum(promised - gained, 1e-6 * promised)
    factor = jnp.where(promised > 0, promised / jnp.where(promised > 0, 2.0 * missing, 1.0), 1.0)
    # What is not finite was a step much too far.
    factor = jnp.clip(jnp.where(jnp.isfinite(factor), factor, 0.0), 0.2, 5.0)
    return jnp.clip(bound * factor, least, most)
