"""The family of autoencoders."""

from __future__ import annotations

from flax import linen as nn

from alphaopt_jax.tasks import networks
from alphaopt_jax.tasks.families import _digits, supervised
from alphaopt_jax.tasks.families.supervised import supervised_family
from alphaopt_jax.tasks.task import Family

_PIXELS = 64


def digit_autoencoder(name: str, hidden: tuple[int, ...], *, batch_size: int) -> Family:
    """Returns autoencoders of 8x8 digits: tanh MLPs with hidden layers of the given widths."""
    return supervised_family(
        name,
        networks.MLP(hidden, _PIXELS, nn.tanh),
        _digits.digit_reconstruction(),
        supervised.squared_error,
        batch_size=batch_size,
    )
