"""Noisy quadratics: everything an optimizer meets near a minimum, and nothing else.

The loss is 0.5 (x - x* - n)ᵀ H (x - x* - n) plus a positive floor, with n drawn in the batch: noise
that moves the minimum, as minibatches do, leaves the loss positive, where noise on the gradient
alone would not. The gradient's noise is H n.
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
    """What the quadratics of a family differ in.

    Attributes:
      spectrum: Eigenvalues of H, `float32[d]`.
      rotation: Columns are eigenvectors of H, `float32[d, d]`.
      minimum: x*, `float32[d]`.
      noise: Standard deviation of n, coordinate by coordinate, `float32[]`.
      floor: The least loss without noise, `float32[]`.
    """

    spectrum: chex.Array
    rotation: chex.Array
    minimum: chex.Array
    noise: chex.Array
    floor: chex.Array


def quadratics(
    name: str, dimension: int, *, distances: tuple[float, float], rotated_share: float
) -> Family:
    """Returns noisy quadratics of condition number 1 to 10,000. They start at about 1.

    Args:
      name: The family's name.
      dimension: The parameters are `float32[dimension]`.
      distances: Bounds of the typical size of a coordinate of the minimum, drawn log-uniformly.
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
            # Between a millionth and a hundredth of the loss one unit off the minimum.
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
    """Draws eigenvalues around 1, evenly spaced in the logarithm, in random order."""
    scale_key, condition_key, order_key = jax.random.split(key, 3)
    condition = log_uniform(condition_key, *_CONDITION_NUMBERS)
    powers = jax.random.permutation(order_key, jnp.linspace(-1.0, 0.0, dimension))
    return log_uniform(scale_key, 0.1, 10.0) * condition**powers
