"""The catalog of the test suite: tasks for comparing optimizers, never used to train an agent.

`SUITE` has small tasks of many kinds, `LARGE` two tasks with more than 600,000 parameters. All
arrays of a task are in the instance that its family samples: they are arguments of a compiled
function, not constants.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from types import MappingProxyType
from typing import Any

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from alphaopt_jax.tasks.suite import _data, _families, _generated, _networks
from alphaopt_jax.tasks.task import Family, Task


@dataclasses.dataclass(frozen=True)
class SuiteTask:
    """A task of the suite.

    Attributes:
      family: Family of the task; `family.sample` ignores its key if the data is fixed.
      title: Name for figures and tables.
      cheap: Whether the task is fast enough for 20,000 steps.
    """

    family: Family
    title: str
    cheap: bool = False

    @property
    def name(self) -> str:
        """Key in `SUITE` or `LARGE`, valid as a file name."""
        return self.family.name


def num_parameters(task: Task) -> int:
    """Returns the number of parameters of a task.

    Example:
      >>> num_parameters(SUITE["diabetes"].family.draw(jax.random.key(0)))
      1441
    """
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def _scaled(images: chex.Array) -> chex.Array:
    return images.astype(jnp.float32) / 255.0


def _flat(images: chex.Array) -> chex.Array:
    return _scaled(images).reshape(images.shape[0], -1)


def _pooled(images: chex.Array) -> chex.Array:
    """Maps `uint8[B, 28, 28]` to means of 2x2 pixels, `float32[B, 196]`."""
    return _scaled(images).reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196)


def _tiny(*arguments: Any, **keywords: Any) -> chex.Array:
    return 0.01 * nn.linear.default_kernel_init(*arguments, **keywords)


def _pixel_cross_entropy(logits: chex.Array, pixels: chex.Array) -> chex.Array:
    return optax.sigmoid_binary_cross_entropy(logits, pixels)


_MLP = _networks.MLP
_CHARACTERS = len(_data.CHARACTERS)

_SMALL = (
    SuiteTask(
        _families.supervised(
            "mnist_cnn",
            _families.fixed_data(_data.mnist),
            _networks.ConvolutionalNetwork((6, 12), 10),
            batch_size=32,
            prepare=_scaled,
        ),
        "MNIST, CNN",
    ),
    SuiteTask(
        _families.supervised(
            "mnist_mlp",
            _families.fixed_data(_data.mnist),
            _MLP((20, 10), activation=nn.sigmoid),
            batch_size=128,
            prepare=_flat,
        ),
        "MNIST, 20 sigmoid units",
    ),
    SuiteTask(
        _families.supervised(
            "mnist_autoencoder",
            _families.fixed_data(_data.mnist),
            _MLP((48, 8, 48, 196), activation=jnp.tanh),
            _pixel_cross_entropy,
            batch_size=64,
            prepare=_pooled,
            reconstruct=True,
        ),
        "MNIST 14x14, autoencoder",
    ),
    SuiteTask(
        _families.supervised(
            "omniglot",
            _families.fixed_data(_data.omniglot),
            _networks.ConvolutionalNetwork((6, 12, 12), 20),
            batch_size=32,
            prepare=_scaled,
        ),
        "Omniglot, 20 characters, CNN",
    ),
    SuiteTask(
        _families.language(
            "char_transformer", _networks.CharacterTransformer(_CHARACTERS), batch_size=8
        ),
        "Text, transformer",
    ),
    SuiteTask(
        _families.language("char_gru", _networks.CharacterGRU(_CHARACTERS), batch_size=8),
        "Text, GRU",
    ),
    SuiteTask(
        _families.streaming(
            "ill_conditioned",
            _generated.sample_regression,
            _generated.regression_examples,
            _MLP((1,), kernel_init=nn.initializers.zeros),
            _families.squared_error,
            batch_size=32,
        ),
        "Regression, condition 10⁴",
        cheap=True,
    ),
    SuiteTask(
        _families.supervised(
            "breast_cancer", _families.fixed_data(_data.breast_cancer), _MLP((2,)), batch_size=32
        ),
        "Breast cancer, logistic",
        cheap=True,
    ),
    SuiteTask(
        _families.streaming(
            "deep_narrow",
            lambda key: jax.random.normal(key, (32, 16)),
            _generated.cluster_examples,
            _MLP((16,) * 8 + (8,), activation=jnp.tanh),
            _families.cross_entropy,
            batch_size=64,
        ),
        "Clusters, 8 tanh layers",
    ),
    SuiteTask(
        _families.supervised(
            "residual_digits",
            _families.fixed_data(_data.digits),
            _networks.ResidualMLP(width=32, blocks=2, classes=10),
            batch_size=64,
        ),
        "Digits, residual with LayerNorm",
    ),
    SuiteTask(
        _families.supervised(
            "tiny_init",
            _families.fixed_data(_data.digits),
            _MLP((32, 32, 10), kernel_init=_tiny),
            batch_size=64,
        ),
        "Digits, MLP started at 0.01x",
    ),
    SuiteTask(
        _families.streaming(
            "teacher_student",
            _generated.sample_teacher,
            _generated.teacher_examples,
            _MLP((64, 1)),
            _families.squared_error,
            batch_size=64,
        ),
        "Teacher and student",
        cheap=True,
    ),
    SuiteTask(
        _families.supervised(
            "matrix_factorisation",
            _generated.sample_table,
            _networks.DeepLinear((40, 30), rank=8),
            _families.squared_error,
            batch_size=64,
        ),
        "Matrix factorization, deep linear",
        cheap=True,
    ),
    SuiteTask(
        _families.supervised(
            "coordinate_network",
            _families.fixed_data(_data.photograph),
            _networks.CoordinateNetwork(),
            _families.squared_error,
            batch_size=128,
        ),
        "Photograph from coordinates",
    ),
    SuiteTask(
        _families.supervised(
            "raw_wine", _families.fixed_data(_data.wine), _MLP((32, 3)), batch_size=32
        ),
        "Wine, inputs not scaled",
        cheap=True,
    ),
    SuiteTask(
        _families.supervised(
            "diabetes",
            _families.fixed_data(_data.diabetes),
            _MLP((32, 32, 1)),
            _families.squared_error,
            batch_size=32,
        ),
        "Diabetes, ReLU MLP",
        cheap=True,
    ),
    SuiteTask(_generated.poisson(), "Poisson's equation, physics-informed"),
)

SUITE: Mapping[str, SuiteTask] = MappingProxyType({each.name: each for each in _SMALL})
"""The suite by name. Neither training nor selection of an agent may use it."""

LARGE: Mapping[str, SuiteTask] = MappingProxyType(
    {
        each.name: each
        for each in (
            SuiteTask(
                _families.supervised(
                    "large_mnist",
                    _families.fixed_data(_data.mnist),
                    _MLP((512, 512, 10)),
                    batch_size=64,
                    prepare=_flat,
                ),
                "MNIST, MLP 784-512-512-10",
            ),
            SuiteTask(
                _families.supervised(
                    "large_digits",
                    _families.fixed_data(_data.digits),
                    _MLP((768, 768, 10)),
                    batch_size=64,
                ),
                "Digits, MLP 64-768-768-10",
            ),
        )
    }
)
"""Tasks with networks a hundred times larger than in meta-training, for short runs."""
