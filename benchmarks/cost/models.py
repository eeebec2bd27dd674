"""Parameter trees to step over: one tensor of any size, and the shapes of known models."""

from __future__ import annotations

from collections.abc import Sequence
import math

import chex
import jax
import jax.numpy as jnp

Shape = tuple[int, ...]


def one_tensor(size: int) -> list[Shape]:
    """Shape of a matrix of about `size` numbers, with at most a thousand columns."""
    width = min(1000, math.isqrt(size))
    return [(size // width, width)]


def small_leaves() -> list[Shape]:
    """240 small leaves of twenty shapes: kernels and biases of sixty convolutions and layers."""
    shapes: list[Shape] = []
    for number in range(60):
        inputs, outputs = 8 + number % 5, 24 + number % 7
        shapes += [(3, 3, inputs, 16), (16,), (16, outputs), (outputs,)]
    return shapes


def resnet50() -> list[Shape]:
    """The 161 leaves of ResNet-50 (He et al. 2016): 25.6 million parameters.

    Example:
      >>> shapes = resnet50()
      >>> len(shapes), sum(math.prod(shape) for shape in shapes)
      (161, 25557032)
    """
    shapes: list[Shape] = _convolution(7, 3, 64)
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += _convolution(1, inputs, width)
            shapes += _convolution(3, width, width)
            shapes += _convolution(1, width, 4 * width)
            if block == 0:
                shapes += _convolution(1, inputs, 4 * width)
            inputs = 4 * width
    return [*shapes, (inputs, 1000), (1000,)]


def gpt2_small() -> list[Shape]:
    """The 148 leaves of GPT-2 small (Radford et al. 2019): 124.4 million parameters.

    Example:
      >>> shapes = gpt2_small()
      >>> len(shapes), sum(math.prod(shape) for shape in shapes)
      (148, 124439808)
    """
    width = 768
    norm: list[Shape] = [(width,), (width,)]
    block: list[Shape] = [
        *norm,
        (width, 3 * width),
        (3 * width,),
        (width, width),
        (width,),
        *norm,
        (width, 4 * width),
        (4 * width,),
        (4 * width, width),
        (width,),
    ]
    return [(50257, width), (1024, width), *block * 12, *norm]


def make(shapes: Sequence[Shape], dtype: jnp.dtype) -> tuple[list[chex.Array], list[chex.Array]]:
    """Parameters with a root mean square of 0.05, and gradients of the same shapes."""

    def wave(shape: Shape, size: float, pace: float) -> chex.Array:
        angles = pace * jnp.arange(math.prod(shape), dtype=jnp.float32)
        return (size * jnp.cos(angles)).reshape(shape).astype(dtype)

    @jax.jit
    def both() -> tuple[list[chex.Array], list[chex.Array]]:
        return (
            [wave(shape, 0.07, 0.37) for shape in shapes],
            [wave(shape, 0.01, 1.13) for shape in shapes],
        )

    return both()


def _convolution(side: int, inputs: int, outputs: int) -> list[Shape]:
    """Shapes of a convolution, and of scale and shift of the normalization after it."""
    return [(side, side, inputs, outputs), (outputs,), (outputs,)]
