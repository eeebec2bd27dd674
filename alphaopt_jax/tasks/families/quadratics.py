"""Noisy quadratics, the local model of a loss near its minimum.

The loss is 0.5 (x - x* - n)ᵀ H (x - x* - n) plus a positive floor, where the batch is the noise n.
Noise that moves the minimum, as minibatches do, keeps the loss positive; noise on the gradient
alone would not. The noise of the gradient is H n.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from alphaopt_jax.tasks.families.supervised import log_uniform
from alphaopt_jax.tasks.task import Family, Task

_CONDITION_NUMBERS = (1.0, 1e4)


class Quadratic(NamedTuple):
    """Instance of a family of quadratics.

    Attributes:
      spectrum: Eigenvalues of H, `float32[d]`.
      rotation: Eigenvectors of H as columns, `float32[d, d]`.
      minimum: x*, `float32[d]`.
      noise: Standard deviation of each coordinate of n, `float32[]`.
      floor: Minimum of the loss without noise, `float32[]`.
    """

    spectrum: chex.Array
    rotation: chex.Array
    minimum: chex.Array
    noise: chex.Array
    floor: chex.Array


def quadratics(
    name: str, dimension: int, *, distances: tuple[float, float], rotated_share: float
) -> Family:
    """Returns noisy quadratics with condition numbers from 1 to 10,000.

    Initial parameters are standard normal.

    Args:
      name: Name of the family.
      dimension: d; the parameters are `float32[d]`.
      distances: Bounds of the standard deviation of x*, which is drawn log-uniformly.
      rotated_share: Share of the quadratics that are not separable, between 0 and 1.

    Example:
      >>> import jax
      >>> family = quadratics("q", 5, distances=(0.3, 3.0), rotated_share=0.5)
      >>> task = family.draw(jax.random.key(0))
      >>> bool(task.evaluation_loss(task.init(jax.random.key(1))) > 0.0)
      True
    """

    def sample(key: chex.PRNGKey) -> Quadratic:
        keys = jax.random.split(key, 7)
        spectrum = _sample_spectrum(keys[0], dimension)
        rotation = jax.random.orthogonal(keys[1], dimension)
        rotates = jax.random.bernoulli(keys[2], rotated_share)
        return Quadratic(
            spectrum=spectrum,
            rotation=jnp.where(rotates, rotation, jnp.eye(dimension)),
            minimum=log_uniform(keys[3], *distances) * jax.random.normal(keys[4], (dimension,)),
            noise=log_uniform(keys[5], 0.003, 0.3),
            # Between 1e-6 and 1e-2 of the loss at a distance of 1 from the minimum.
            floor=log_uniform(keys[6], 1e-6, 1e-2) * jnp.sum(spectrum),
        )

    def task(instance: Quadratic) -> Task:
        def loss(params: chex.Array, noise: chex.Array) -> chex.Array:
            offset = (params - instance.minimum - noise) @ instance.rotation
            return 0.5 * jnp.sum(instance.spectrum * offset**2) + instance.floor

        return Task(
            name=name,
            init=lambda key: jax.random.normal(key, (dimension,)),
            batch=lambda key: instance.noise * jax.random.normal(key, (dimension,)),
            loss=loss,
            evaluation_loss=lambda params: loss(params, jnp.zeros(dimension)),
        )

    return Family(name, sample, task)


def _sample_spectrum(key: chex.PRNGKey, dimension: int) -> chex.Array:
    """Draws log-spaced eigenvalues around 1, in random order."""
    scale_key, condition_key, order_key = jax.random.split(key, 3)
    condition = log_uniform(condition_key, *_CONDITION_NUMBERS)
    powers = jax.random.permutation(order_key, jnp.linspace(-1.0, 0.0, dimension))
    return log_uniform(scale_key, 0.1, 10.0) * condition**powers
