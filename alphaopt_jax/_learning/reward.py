"""The reward: the decrease of the loss, divided among the parameters.

Along a step Δθ the loss falls by the line integral of the gradient. The trapezoid rule gives
parameter i the part

    r_i = -½ (g_i(θ_t) + g_i(θ_{t+1})) Δθ_i,        Σ_i r_i = L(θ_t) - L(θ_{t+1}),

exactly for a quadratic and to second order otherwise. Each parameter is then an agent with its own
reward (a value decomposition, as VDN for teams: Sunehag et al. 2017), without the noise of all
other parameters.

With minibatches the step and g(θ_t) share their noise, so that -g_i(θ_t) Δθ_i is biased upward for
any rate. The weight of the gradient before the step is therefore free: 0 gives the end-point rule
-g_i(θ_{t+1}) Δθ_i, with noise that is independent of the step.
"""

from __future__ import annotations

from jaxtyping import Array, Float


def divided(
    previous_grad: Float[Array, "*shape"],
    grad: Float[Array, "*shape"],
    step: Float[Array, "*shape"],
    previous_gradient_weight: float = 0.5,
) -> Float[Array, "*shape"]:
    """Each parameter's part of the decrease of the loss.

    Args:
      previous_grad: Gradients before the step, any shape.
      grad: Gradients after the step, the same shape.
      step: Change of the parameters, the same shape.
      previous_gradient_weight: 0.5 for the trapezoid rule, 0 for the end-point rule.

    Returns:
      The rewards, in units of the loss, of the same shape; positive for a decrease.

    Example:
      >>> import jax.numpy as jnp
      >>> before, after = jnp.array([2.0, -1.0]), jnp.array([1.0, 0.0])
      >>> grad = lambda x: x                          # of the loss ½ x²
      >>> rewards = divided(grad(before), grad(after), after - before)
      >>> float(rewards.sum()), float(0.5 * (before @ before - after @ after))
      (2.0, 2.0)
    """
    weight = previous_gradient_weight
    return -(weight * previous_grad + (1.0 - weight) * grad) * step


def shared(previous_loss: Float[Array, ""], loss: Float[Array, ""]) -> Float[Array, ""]:
    """The decrease of the loss, one reward for all parameters: `float32[]`."""
    return previous_loss - loss
