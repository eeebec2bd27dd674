"""The reward, the decrease of the loss, and how it is divided among the parameters.

Along a step Δθ the loss falls by the line integral of the gradient, and the trapezoid rule gives
parameter i the part

    r_i = -½ (g_i(θ_t) + g_i(θ_{t+1})) Δθ_i,        Σ_i r_i = L(θ_t) - L(θ_{t+1}),

exactly for a quadratic and to second order otherwise. Every parameter is then an agent with its own
reward (a value decomposition, as VDN has it for teams: Sunehag et al. 2017), whose signal
does not drown in the noise of all the others.

With minibatches the step was made from the same noise as g(θ_t), so that -g_i(θ_t) Δθ_i is always
flattering, whatever the rate. The weight of the gradient before the step is therefore free: 0 gives
the end-point rule -g_i(θ_{t+1}) Δθ_i, whose noise is fresh.
"""

from __future__ import annotations

from jaxtyping import Array, Float


def divided(
    previous_grad: Float[Array, "*shape"],
    grad: Float[Array, "*shape"],
    step: Float[Array, "*shape"],
    previous_gradient_weight: float = 0.5,
) -> Float[Array, "*shape"]:
    """Each parameter's own part of the decrease of the loss.

    Args:
      previous_grad: Gradients where the step began, any shape.
      grad: Gradients where it ended, the same shape.
      step: The change of the parameters, the same shape.
      previous_gradient_weight: 0.5 for the trapezoid rule, 0 for the end-point rule.

    Returns:
      The credit, in units of the loss, of the same shape. Positive where the loss fell.

    Example:
      >>> import jax.numpy as jnp
      >>> before, after = jnp.array([2.0, -1.0]), jnp.array([1.0, 0.0])
      >>> grad = lambda x: x                          # of the loss ½ x²
      >>> credit = divided(grad(before), grad(after), after - before)
      >>> float(credit.sum()), float(0.5 * (before @ before - after @ after))
      (2.0, 2.0)
    """
    weight = previous_gradient_weight
    return -(weight * previous_grad + (1.0 - weight) * grad) * step


def shared(previous_loss: Float[Array, ""], loss: Float[Array, ""]) -> Float[Array, ""]:
    """The decrease of the loss, one reward for all: `float32[]`."""
    return previous_loss - loss
