"""Families of small tasks for meta-training and validation."""

from alphaopt_jax.tasks.families.augmentation import noisy_gradients, reparametrized, scaled_loss
from alphaopt_jax.tasks.families.distribution import (
    plain_training_families,
    training_families,
    validation_families,
)
from alphaopt_jax.tasks.families.supervised import Batch, Source, supervised_family

__all__ = [
    "Batch",
    "Source",
    "noisy_gradients",
    "plain_training_families",
    "reparametrized",
    "scaled_loss",
    "supervised_family",
    "training_families",
    "validation_families",
]
