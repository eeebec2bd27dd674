"""Augmentation of families: random scales of the loss and the parameters, and gradient noise.

An agent trained on augmented tasks learns to be robust to scales and noise. Each augmentation
leaves an instance unchanged with a given probability, because most tasks of users are not extreme.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax.tasks.families.supervised import log_uniform
from alphaopt_jax.tasks.task import Family, Task

_LOSS_SCALES = (np.exp(-4.0), np.exp(4.0))
_PARAMETER_SCALES = (np.exp(-1.5), np.exp(1.5))
_NOISE_LEVELS = (0.03, 1.0)
_MAX_CHANGE = 0.5


class Augmented(NamedTuple):
    """An instance of an augmented family.

    Attributes:
      original: Instance of the original family.
      scale: One factor, `float32[]`, or one for each parameter leaf, `float32[leaves]`.
    """

    original: Any
    scale: chex.Array


def scaled_loss(family: Family, *, probability: float = 0.5) -> Family:
    """Returns `family` with both losses multiplied by a factor between exp(-4) and exp(4).

    Args:
      family: Family to augment; the result has the same name.
      probability: Probability that an instance's factor is not 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from alphaopt_jax.tasks.task import Family, Task
      >>> def bowl(scale):
      ...     loss = lambda params, batch=None: scale * jnp.sum(params**2)
      ...     return Task("bowl", lambda key: jnp.ones(3), lambda key: None, loss, loss)
      >>> family = scaled_loss(Family("bowl", sample=lambda key: jnp.ones(()), task=bowl))
      >>> task = family.task(Augmented(original=jnp.ones(()), scale=jnp.array(10.0)))
      >>> float(task.loss(jnp.ones(3), None))
      30.0
    """

    def sample(key: chex.PRNGKey) -> Augmented:
        family_key, scale_key = jax.random.split(key)
        scale = _sample_or_one(scale_key, probability, *_LOSS_SCALES, shape=())
        return Augmented(family.sample(family_key), scale)

    def task(instance: Augmented) -> Task:
        plain = family.task(instance.original)
        return dataclasses.replace(
            plain,
            loss=lambda params, batch: instance.scale * plain.loss(params, batch),
            evaluation_loss=lambda params: instance.scale * plain.evaluation_loss(params),
        )

    return Family(family.name, sample, task)


def reparametrized(family: Family, *, probability: float = 0.5) -> Family:
    """Returns `family` with every parameter leaf scaled.

    The original parameters are the new ones times a factor between exp(-1.5) and exp(1.5) for each
    leaf. Initial parameters are divided by it, so that training starts from the same function.

    Args:
      family: Family to augment; the result has the same name.
      probability: Probability that an instance's factors are not 1.
    """

    def sample(key: chex.PRNGKey) -> Augmented:
        family_key, scale_key = jax.random.split(key)
        original = family.sample(family_key)
        leaves = len(jax.tree.leaves(_parameter_shapes(family.task(original))))
        scale = _sample_or_one(scale_key, probability, *_PARAMETER_SCALES, shape=(leaves,))
        return Augmented(original, scale)

    def task(instance: Augmented) -> Task:
        plain = family.task(instance.original)

        def original(params: chex.ArrayTree) -> chex.ArrayTree:
            return _scale_leaves(params, instance.scale)

        return dataclasses.replace(
            plain,
            init=lambda key: _scale_leaves(plain.init(key), 1.0 / instance.scale),
            loss=lambda params, batch: plain.loss(original(params), batch),
            evaluation_loss=lambda params: plain.evaluation_loss(original(params)),
        )

    return Family(family.name, sample, task)


class NoisyBatch(NamedTuple):
    """A batch and its gradient noise.

    Attributes:
      original: Batch of the original family.
      noise: Normal noise with the standard deviation of each leaf, shaped like the parameters.
    """

    original: Any
    noise: chex.ArrayTree


def noisy_gradients(family: Family, *, probability: float = 0.5) -> Family:
    """Returns `family` with Gaussian noise on the gradients of the training loss.

    The training loss is multiplied by 1 + tanh(2 <noise, params>) / 2. For small noise this adds
    loss * noise to the gradient. Simply adding <noise, params> would make a small loss negative;
    the product stays positive, changes by at most a half, and keeps the mean over the noise. The
    evaluation loss has no noise.

    The standard deviation of a leaf's noise is 0.03 to 1 times the root mean square of the
    gradient of the log loss, at one random initialization and batch.

    Args:
      family: Family to augment; the result has the same name.
      probability: Probability that an instance has noise.
    """

    def sample(key: chex.PRNGKey) -> Augmented:
        family_key, level_key, which_key, init_key, batch_key = jax.random.split(key, 5)
        original = family.sample(family_key)
        plain = family.task(original)
        params, batch = plain.init(init_key), plain.batch(batch_key)
        gradient = jax.grad(lambda params: jnp.log(plain.loss(params, batch)))(params)
        typical = jnp.stack(
            [jnp.sqrt(jnp.mean(jnp.square(leaf))) for leaf in jax.tree.leaves(gradient)]
        )
        level = log_uniform(level_key, *_NOISE_LEVELS) * typical
        return Augmented(
            original, jnp.where(jax.random.bernoulli(which_key, probability), level, 0.0)
        )

    def task(instance: Augmented) -> Task:
        plain = family.task(instance.original)

        def batch(key: chex.PRNGKey) -> NoisyBatch:
            batch_key, noise_key = jax.random.split(key)
            standard = _standard_normal(noise_key, _parameter_shapes(plain))
            return NoisyBatch(plain.batch(batch_key), _scale_leaves(standard, instance.scale))

        def loss(params: chex.ArrayTree, batch: NoisyBatch) -> chex.Array:
            products = jax.tree.map(lambda leaf, noise: jnp.sum(leaf * noise), params, batch.noise)
            change = _MAX_CHANGE * jnp.tanh(jax.tree.reduce(jnp.add, products) / _MAX_CHANGE)
            return plain.loss(params, batch.original) * (1.0 + change)

        return dataclasses.replace(plain, batch=batch, loss=loss)

    return Family(family.name, sample, task)


def _sample_or_one(
    key: chex.PRNGKey, probability: float, low: float, high: float, *, shape: tuple[int, ...]
) -> chex.Array:
    which_key, scale_key = jax.random.split(key)
    is_scaled = jax.random.bernoulli(which_key, probability)
    return jnp.where(is_scaled, log_uniform(scale_key, low, high, shape), 1.0)


def _parameter_shapes(task: Task) -> chex.ArrayTree:
    return jax.eval_shape(task.init, jax.random.key(0))


def _scale_leaves(params: chex.ArrayTree, scales: chex.Array) -> chex.ArrayTree:
    leaves, structure = jax.tree.flatten(params)
    scaled = [leaf * scales[index] for index, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, scaled)


def _standard_normal(key: chex.PRNGKey, shapes: chex.ArrayTree) -> chex.ArrayTree:
    leaves, structure = jax.tree.flatten(shapes)
    ends = np.cumsum([leaf.size for leaf in leaves])
    # One draw for all leaves: each call of the random number generator is slow to compile.
    parts = jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1])
    shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)
