"""The networks of the test suite, as Flax Linen modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

Initializer = Callable[..., chex.Array]
_DEFAULT_KERNEL: Initializer = nn.linear.default_kernel_init


class MLP(nn.Module):
    """Dense layers with an activation between them.

    Attributes:
      widths: Width of every layer; the last is the number of outputs.
      activation: Activation between the layers.
      kernel_init: Initializer of all kernels; biases are initialized to zero.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> network = MLP((8, 3))
      >>> params = network.init(jax.random.key(0), jnp.zeros((1, 5)))
      >>> network.apply(params, jnp.zeros((2, 5))).shape
      (2, 3)
    """

    widths: Sequence[int]
    activation: Callable[[chex.Array], chex.Array] = nn.relu
    kernel_init: Initializer = _DEFAULT_KERNEL

    @nn.compact
    def __call__(self, inputs: chex.Array) -> chex.Array:
        """Maps `float32[..., I]` to `float32[..., O]`."""
        hidden = inputs
        for width in self.widths[:-1]:
            hidden = self.activation(nn.Dense(width, kernel_init=self.kernel_init)(hidden))
        return nn.Dense(self.widths[-1], kernel_init=self.kernel_init)(hidden)


class StridedConvolution(nn.Module):
    """A 3x3 convolution with stride 2 and zero padding, as nine slices and one matrix product.

    On a CPU, XLA's convolutions are slow inside loops; this is not.

    Attributes:
      features: Number of output channels.
    """

    features: int

    @nn.compact
    def __call__(self, images: chex.Array) -> chex.Array:
        """Maps `float32[B, H, W, C]` to `float32[B, ceil(H / 2), ceil(W / 2), features]`."""
        channels = images.shape[-1]
        kernel = self.param("kernel", _DEFAULT_KERNEL, (3, 3, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = images.shape[1:3]
        slices = [
            padded[:, row : row + height : 2, column : column + width : 2]
            for row in range(3)
            for column in range(3)
        ]
        patches = jnp.concatenate(slices, axis=-1)
        return patches @ kernel.reshape(9 * channels, self.features) + bias


class ConvolutionalNetwork(nn.Module):
    """Strided convolutions with ReLU, then one dense layer.

    Attributes:
      features: Output channels of each convolution.
      classes: Number of outputs.
    """

    features: Sequence[int]
    classes: int

    @nn.compact
    def __call__(self, images: chex.Array) -> chex.Array:
        """Maps images `float32[B, H, W]` to logits `float32[B, classes]`."""
        hidden = images[..., None]
        for features in self.features:
            hidden = nn.relu(StridedConvolution(features)(hidden))
        return nn.Dense(self.classes)(hidden.reshape(hidden.shape[0], -1))


class ResidualMLP(nn.Module):
    """Pre-norm residual blocks; the last layer is initialized to zero.

    Attributes:
      width: Width of the residual stream and of the hidden layers.
      blocks: Number of blocks.
      classes: Number of outputs.
    """

    width: int
    blocks: int
    classes: int

    @nn.compact
    def __call__(self, inputs: chex.Array) -> chex.Array:
        """Maps `float32[B, I]` to logits `float32[B, classes]`."""
        stream = nn.Dense(self.width)(inputs)
        for _ in range(self.blocks):
            hidden = nn.gelu(nn.Dense(self.width)(nn.LayerNorm()(stream)))
            stream = stream + nn.Dense(self.width)(hidden)
        return nn.Dense(self.classes, kernel_init=nn.initializers.zeros)(nn.LayerNorm()(stream))


class CharacterTransformer(nn.Module):
    """A causal transformer of one pre-norm block with two heads and learned positions.

    Attributes:
      vocabulary: Number of characters.
      width: Width of the residual stream.
    """

    vocabulary: int
    width: int = 32

    @nn.compact
    def __call__(self, characters: chex.Array) -> chex.Array:
        """Maps `int[B, T]` to logits of the next characters, `float32[B, T, vocabulary]`."""
        length = characters.shape[-1]
        positions = self.param("positions", nn.initializers.normal(0.02), (length, self.width))
        stream = nn.Embed(self.vocabulary, self.width)(characters) + positions
        heads = nn.Dense(3 * self.width)(nn.LayerNorm()(stream))
        heads = heads.reshape(*characters.shape, 3, 2, self.width // 2)
        query, key, value = (heads[..., i, :, :] for i in range(3))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / jnp.sqrt(self.width / 2.0)
        allowed = jnp.tril(jnp.ones((length, length), bool))
        attention = nn.softmax(jnp.where(allowed, scores, -1e9))
        mixed = jnp.einsum("bhqk,bkhd->bqhd", attention, value).reshape(stream.shape)
        stream = stream + nn.Dense(self.width)(mixed)
        hidden = nn.gelu(nn.Dense(2 * self.width)(nn.LayerNorm()(stream)))
        stream = stream + nn.Dense(self.width)(hidden)
        return nn.Dense(self.vocabulary)(nn.LayerNorm()(stream))


class CharacterGRU(nn.Module):
    """A gated recurrent unit over characters.

    Attributes:
      vocabulary: Number of characters.
      width: Width of the embedding and of the state.
    """

    vocabulary: int
    width: int = 24

    @nn.compact
    def __call__(self, characters: chex.Array) -> chex.Array:
        """Maps `int[B, T]` to logits of the next characters, `float32[B, T, vocabulary]`."""
        embedded = nn.Embed(self.vocabulary, self.width)(characters)
        hidden: Any = nn.RNN(nn.GRUCell(self.width))(embedded)
        return nn.Dense(self.vocabulary)(hidden)


class CoordinateNetwork(nn.Module):
    """A function of the plane: fixed random Fourier features, then an MLP.

    Attributes:
      frequencies: Number of sines and of cosines.
      scale: Standard deviation of their angular frequencies.
      width: Width of the two hidden layers.
    """

    frequencies: int = 24
    scale: float = 8.0
    width: int = 48

    @nn.compact
    def __call__(self, coordinates: chex.Array) -> chex.Array:
        """Maps `float32[B, 2]` to `float32[B]`."""
        directions = self.scale * jax.random.normal(jax.random.key(7), (2, self.frequencies))
        angles = coordinates @ directions
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        return MLP((self.width, self.width, 1))(waves)[..., 0]


class DeepLinear(nn.Module):
    """A matrix as the product of three small random matrices, for matrix factorization.

    Attributes:
      shape: Numbers of rows and columns.
      rank: Rank of the factors.
    """

    shape: tuple[int, int]
    rank: int

    @nn.compact
    def __call__(self, entries: chex.Array) -> chex.Array:
        """Maps positions in the matrix, `int32[B, 2]`, to its entries, `float32[B]`."""
        start = nn.initializers.normal(0.1)
        left = self.param("left", start, (self.shape[0], self.rank))
        middle = self.param("middle", start, (self.rank, self.rank))
        right = self.param("right", start, (self.shape[1], self.rank))
        return jnp.sum((left[entries[..., 0]] @ middle) * right[entries[..., 1]], axis=-1)
