"""Gradients through updates, against central differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

import alphaopt_jax as alphaopt
from benchmarks.robustness.situations import trainings

START = {
    "w": jnp.array([[0.3, 0.4], [-0.2, 0.7]]),
    "b": jnp.zeros(2),
    "unused": jnp.zeros(3),
}
"""Parameters: a matrix, a leaf of zeros, and one that the loss does not depend on."""
_DIRECTION = {
    "w": jnp.array([[1.0, -0.5], [0.3, 0.8]]),
    "b": jnp.array([0.5, -1.0]),
    "unused": jnp.ones(3),
}


def _cost(params: Any) -> chex.Array:
    weighted = jnp.square(params["w"] - 1.0) * jnp.array([[1.0, 3.0]])
    return jnp.sum(weighted) + jnp.sum(jnp.square(params["b"] + 0.5))


def final_cost(mode: str, steps: int, *, passes: bool) -> Callable[[Any], chex.Array]:
    """The loss after a training as a function of the parameters at its start."""
    tx = trainings.make(mode)
    return lambda start: _cost(trainings.scan(tx, _cost, start, steps, passes=passes).params)


def derivatives(function: Callable[[Any], chex.Array], leaf: str, size: float) -> tuple[float, ...]:
    """Derivatives along one leaf of the start, in reverse mode and by central differences.

    Args:
      function: A scalar function of parameters like `START`.
      leaf: Name of the leaf.
      size: Distance of the two points of a central difference from `START`.

    Returns:
      Both; the first is NaN if the gradient of any leaf is not finite.
    """
    gradients = jax.jit(jax.grad(function))(START)
    found = float(jnp.sum(gradients[leaf] * _DIRECTION[leaf]))
    if not all(bool(jnp.all(jnp.isfinite(each))) for each in gradients.values()):
        found = np.nan
    function = jax.jit(function)
    above, below = (
        function(START | {leaf: START[leaf] + sign * size * _DIRECTION[leaf]}) for sign in (1, -1)
    )
    return found, float((above - below) / (2.0 * size))


def error(mode: str, steps: int = 3, *, passes: bool = True, size: float = 1e-2) -> float:
    """Relative error of the derivative with respect to the matrix; infinity if one is not finite.

    Args:
      mode: The mode.
      steps: Length of the training.
      passes: Whether the loss is passed as `value`.
      size: As in `derivatives`.
    """
    found, expected = derivatives(final_cost(mode, steps, passes=passes), "w", size)
    return abs(found - expected) / abs(expected) if np.isfinite(found) else np.inf


def error_of_the_schedule(mode: str, steps: int = 3) -> float:
    """Relative error of the derivative with respect to a schedule's learning rate."""

    def final(rate: chex.Array) -> chex.Array:
        tx = alphaopt.alphaopt(lambda _: rate, **trainings.MODES[mode])
        return _cost(trainings.scan(tx, _cost, START, steps).params)

    function, size = jax.jit(final), 0.05
    found = float(jax.jit(jax.grad(final))(jnp.ones(())))
    expected = float(function(1.0 + jnp.asarray(size)) - function(1.0 - jnp.asarray(size)))
    expected /= 2.0 * size
    return abs(found - expected) / abs(expected) if np.isfinite(found) else np.inf


def error_of_forward_mode(mode: str, steps: int = 3) -> float:
    """Relative distance of forward-mode derivatives from those in reverse mode."""
    function = final_cost(mode, steps, passes=True)
    _, found = jax.jit(lambda start: jax.jvp(function, (start,), (_DIRECTION,)))(START)
    gradients = jax.jit(jax.grad(function))(START)
    parts = jax.tree.map(lambda grad, way: jnp.sum(grad * way), gradients, _DIRECTION)
    return trainings.distance(found, sum(jax.tree.leaves(parts)))
