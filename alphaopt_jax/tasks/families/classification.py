"""Families of MLPs and small convolutional networks on digits and synthetic data."""

from __future__ import annotations

from flax import linen as nn

from alphaopt_jax.tasks import networks
from alphaopt_jax.tasks.families import _digits, supervised, synthetic
from alphaopt_jax.tasks.families.supervised import Source, supervised_family
from alphaopt_jax.tasks.task import Family


def classifier(name: str, network: nn.Module, source: Source, *, batch_size: int) -> Family:
    """Returns the family of classifiers on data of `source`, with the cross-entropy loss."""
    return supervised_family(name, network, source, supervised.cross_entropy, batch_size=batch_size)


def student(name: str, network: nn.Module, source: Source, *, batch_size: int) -> Family:
    """Returns the family of regressions on data of `source`, with the squared error."""
    return supervised_family(name, network, source, supervised.squared_error, batch_size=batch_size)


def training_mlps() -> list[Family]:
    """Returns MLPs with one to seven hidden layers and various activations and batch sizes."""
    mlp = networks.MLP
    zeros = nn.initializers.zeros
    mixture = synthetic.gaussian_mixture
    digits = _digits.digits()
    return [
        classifier("digits_relu", mlp((32,), 10), digits, batch_size=64),
        classifier("digits_tanh", mlp((24, 24), 10, nn.tanh), digits, batch_size=32),
        classifier(
            "digits_layer_norm", networks.NormalizedMLP((24, 24), 10), digits, batch_size=16
        ),
        supervised_family(
            "digits_one_hot",
            mlp((20, 20, 20), 10, nn.swish),
            digits,
            supervised.one_hot_error,
            batch_size=64,
        ),
        classifier("mixture_relu", mlp((48,), 5), mixture(16, 5), batch_size=64),
        classifier(
            "mixture_leaky_relu", mlp((24, 16), 4, nn.leaky_relu), mixture(24, 4), batch_size=16
        ),
        classifier(
            "mixture_residual",
            networks.ResidualMLP(16, 3, 6, nn.gelu),
            mixture(12, 6),
            batch_size=32,
        ),
        classifier(
            "mixture_zero_last", mlp((24, 24), 8, nn.swish, zeros), mixture(20, 8), batch_size=64
        ),
        classifier("spirals_tanh", mlp((16,) * 4, 2, nn.tanh), synthetic.spirals(), batch_size=128),
        classifier(
            "raw_mixture_relu",
            mlp((24,), 3),
            synthetic.in_raw_units(mixture(13, 3)),
            batch_size=16,
        ),
        classifier("wide_mixture_tanh", mlp((96,), 6, nn.tanh), mixture(24, 6), batch_size=48),
        classifier("deep_mixture_relu", mlp((16,) * 5, 4), mixture(12, 4), batch_size=32),
        student(
            "deep_teacher_tanh",
            mlp((10,) * 7, 2, nn.tanh),
            synthetic.teacher(features=8, hidden=12, outputs=2),
            batch_size=32,
        ),
        supervised_family(
            "digits_tiny_weights",
            mlp((24, 24), 10),
            digits,
            supervised.cross_entropy,
            batch_size=48,
            weight_scales=(0.005, 0.1),
        ),
        classifier("digits_tiny_batch", mlp((24,), 10, nn.tanh), digits, batch_size=4),
        classifier(
            "mixture_normalized_residual",
            networks.NormalizedResidualMLP(16, 3, 6, nn.gelu),
            mixture(16, 6),
            batch_size=32,
        ),
        student("curve_tanh", mlp((24, 24), 2, nn.tanh), synthetic.curves(4, 2), batch_size=64),
        student(
            "teacher_sigmoid",
            mlp((32, 16), 2, nn.sigmoid),
            synthetic.teacher(features=10, hidden=16, outputs=2),
            batch_size=64,
        ),
    ]


def training_conv_nets() -> list[Family]:
    """Returns small convolutional networks on digits, one with strides and one with pooling."""
    images = _digits.digit_images()
    return [
        classifier("conv_strided", networks.StridedConvNet((8, 12), 10), images, batch_size=32),
        classifier(
            "conv_pooled", networks.PooledConvNet((6, 12), 10, nn.tanh), images, batch_size=16
        ),
    ]


def validation_networks() -> list[Family]:
    """Returns networks that differ from the training ones in depth, width, activation or data."""
    mlp = networks.MLP
    return [
        classifier(
            "wide_digits_gelu", mlp((48,) * 3, 10, nn.gelu), _digits.digits(), batch_size=128
        ),
        classifier("large_digits_relu", mlp((256,), 10), _digits.digits(), batch_size=64),
        classifier(
            "wide_mixture_sigmoid",
            mlp((64,), 8, nn.sigmoid),
            synthetic.gaussian_mixture(40, 8),
            batch_size=32,
        ),
        classifier(
            "deep_mixture_tanh",
            mlp((12,) * 6, 4, nn.tanh),
            synthetic.gaussian_mixture(10, 4),
            batch_size=32,
        ),
        classifier(
            "deep_raw_mixture_relu",
            mlp((20, 12), 4),
            synthetic.in_raw_units(synthetic.gaussian_mixture(8, 4)),
            batch_size=32,
        ),
        classifier(
            "conv_patches",
            networks.StridedConvNet((12, 24), 10, nn.elu, size=2),
            _digits.digit_images(),
            batch_size=64,
        ),
        student(
            "teacher_elu",
            mlp((40, 20), 3, nn.elu),
            synthetic.teacher(features=16, hidden=24, outputs=3),
            batch_size=48,
        ),
    ]
