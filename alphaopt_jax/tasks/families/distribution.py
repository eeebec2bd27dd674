"""The families for meta-training, and those for validation."""

from __future__ import annotations

from collections.abc import Iterable

from alphaopt_jax.tasks.families import (
    _autoencoders,
    _regressions,
    _sequences,
    augmentation,
    classification,
    quadratics,
)
from alphaopt_jax.tasks.task import Family

_NOISY = ("logistic_regression", "spirals_tanh", "teacher_sigmoid")


def training_families() -> dict[str, Family]:
    """Returns the augmented families for meta-training by name. Requires scikit-learn.

    Each augmentation applies to half of a family's instances.
    """
    return _by_name(_augmented(family) for family in plain_training_families())


def validation_families() -> dict[str, Family]:
    """Returns the families for validation by name, other networks and without augmentation."""
    return _by_name(
        [
            _regressions.linear_regression("wide_linear_regression", 40, batch_size=24),
            *classification.validation_networks(),
            _sequences.recall_recurrence("recall_gru", 6, 12, batch_size=32),
        ]
    )


def plain_training_families() -> list[Family]:
    """Returns the families for meta-training, without augmentation."""
    return [
        quadratics.quadratics("quadratic", 20, distances=(0.3, 3.0), rotated_share=0.5),
        quadratics.quadratics("distant_quadratic", 50, distances=(3.0, 100.0), rotated_share=0.0),
        _regressions.linear_regression("linear_regression", 20, batch_size=32),
        _regressions.robust_regression("robust_regression", 10, batch_size=64),
        _regressions.logistic_regression("logistic_regression", 30, batch_size=16),
        _regressions.mixture_regression("mixture_regression", 16, 3, batch_size=32),
        _regressions.table_factorization("table_factorization", 24, 20, 5, batch_size=48),
        *classification.training_mlps(),
        *classification.training_conv_nets(),
        _sequences.running_sum_recurrence("running_sum_recurrent", 3, 16, batch_size=32),
        _sequences.markov_attention("markov_attention", 12, 16, 2, batch_size=16),
        _sequences.markov_embedding("markov_embedding", 40, 8, 24, batch_size=16),
        _autoencoders.digit_autoencoder("digits_autoencoder", (24, 8, 24), batch_size=32),
    ]


def _augmented(family: Family) -> Family:
    # Noise is scaled by the gradients of the original parameters, so it is added first. Drawing it
    # costs as much as the gradient of a small network; a few families are enough.
    if family.name in _NOISY:
        family = augmentation.noisy_gradients(family)
    return augmentation.scaled_loss(augmentation.reparametrized(family))


def _by_name(families: Iterable[Family]) -> dict[str, Family]:
    return {family.name: family for family in families}
