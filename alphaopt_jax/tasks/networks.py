"""Small networks, many of which train under one `jax.vmap`."""

from __future__ import annotations

from collections.abc import Callable

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Activation = Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]]
_LECUN_NORMAL = nn.initializers.lecun_normal()


class MLP(nn.Module):
    """Dense layers with an activation between them; a linear model without hidden layers.

    Attributes:
      hidden: Width of each hidden layer.
      outputs: Width of the last layer.
      activation: Activation of every hidden layer.
      last_kernel_init: Initializer of the last layer's kernel.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> network = MLP(hidden=(5,), outputs=2)
      >>> params = network.init(jax.random.key(0), jnp.ones((1, 3)))
      >>> network.apply(params, jnp.ones((7, 3))).shape
      (7, 2)
    """

    hidden: tuple[int, ...]
    outputs: int
    activation: Activation = nn.relu
    last_kernel_init: nn.initializers.Initializer = _LECUN_NORMAL

    @nn.compact
    def __call__(self, inputs: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Maps `float32[..., inputs]` to `float32[..., outputs]`."""
        hidden = inputs
        for width in self.hidden:
            hidden = self.activation(nn.Dense(width)(hidden))
        return nn.Dense(self.outputs, kernel_init=self.last_kernel_init)(hidden)


class NormalizedMLP(nn.Module):
    """An MLP with a LayerNorm before every activation. Attributes as in `MLP`."""

    hidden: tuple[int, ...]
    outputs: int
    activation: Activation = nn.relu

    @nn.compact
    def __call__(self, inputs: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Maps `float32[..., inputs]` to `float32[..., outputs]`."""
        hidden = inputs
        for width in self.hidden:
            hidden = self.activation(nn.LayerNorm()(nn.Dense(width)(hidden)))
        return nn.Dense(self.outputs)(hidden)


class ResidualMLP(nn.Module):
    """A dense layer, then residual blocks of two dense layers.

    Attributes:
      width: Width of the residual stream and of every hidden layer.
      blocks: Number of residual blocks.
      outputs: Width of the last layer.
      activation: Activation between the two layers of a block.
    """

    width: int
    blocks: int
    outputs: int
    activation: Activation = nn.relu

    @nn.compact
    def __call__(self, inputs: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Maps `float32[..., inputs]` to `float32[..., outputs]`."""
        stream = nn.Dense(self.width)(inputs)
        for _ in range(self.blocks):
            stream += nn.Dense(self.width)(self.activation(self._hidden(stream)))
        return nn.Dense(self.outputs)(stream)

    def _hidden(self, stream: Float[Array, "*batch width"]) -> Float[Array, "*batch hidden"]:
        return nn.Dense(self.width)(stream)


class NormalizedResidualMLP(ResidualMLP):
    """As `ResidualMLP`, with a LayerNorm before each block and twice as many hidden units."""

    def _hidden(self, stream: Float[Array, "*batch width"]) -> Float[Array, "*batch hidden"]:
        return nn.Dense(2 * self.width)(nn.LayerNorm()(stream))


class Factorization(nn.Module):
    """Entries of a product of two matrices, both parameters.

    Attributes:
      rows: Rows of the product.
      columns: Columns of the product.
      rank: Columns of the first factor and of the second.
    """

    rows: int
    columns: int
    rank: int

    @nn.compact
    def __call__(self, entries: Int[Array, "entries 2"]) -> Float[Array, "entries 1"]:
        """Maps rows and columns, `int32[N, 2]`, to the entries, `float32[N, 1]`."""
        left = nn.Embed(self.rows, self.rank)(entries[:, 0])
        right = nn.Embed(self.columns, self.rank)(entries[:, 1])
        return jnp.sum(left * right, axis=-1, keepdims=True)


def convolve(
    images: Float[Array, "images height width channels"],
    kernel: Float[Array, "rows columns channels features"],
    stride: int = 1,
) -> Float[Array, "images new_height new_width features"]:
    """Convolves images with zero padding ("SAME"): stride 1 keeps height and width.

    The convolution is computed by shifted slices and one matrix product: on a CPU, XLA's
    `lax.conv` is many times slower inside a compiled loop than outside.

    Args:
      images: `float32[N, H, W, C]`.
      kernel: `float32[K, L, C, F]`.
      stride: Stride along both axes.

    Returns:
      `float32[N, ceil(H / stride), ceil(W / stride), F]`.

    Example:
      >>> import jax.numpy as jnp
      >>> convolve(jnp.ones((1, 2, 2, 1)), jnp.ones((3, 3, 1, 1))).ravel().tolist()
      [4.0, 4.0, 4.0, 4.0]
    """
    (rows, row_padding), (columns, column_padding) = (
        _same_padding(size, window, stride)
        for size, window in zip(images.shape[1:3], kernel.shape[:2], strict=True)
    )
    padded = jnp.pad(images, ((0, 0), row_padding, column_padding, (0, 0)))
    shifted = [
        padded[:, row : row + (rows - 1) * stride + 1 : stride][
            :, :, column : column + (columns - 1) * stride + 1 : stride
        ]
        for row in range(kernel.shape[0])
        for column in range(kernel.shape[1])
    ]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def _same_padding(size: int, window: int, stride: int) -> tuple[int, tuple[int, int]]:
    outputs = -(-size // stride)
    padding = max((outputs - 1) * stride + window - size, 0)
    return outputs, (padding // 2, padding - padding // 2)


class Convolution(nn.Module):
    """A convolution with a bias and a kernel of shape `[size, size, input, features]`.

    Attributes:
      features: Number of output channels.
      size: Height and width of the kernel.
      stride: As in `convolve`.
    """

    features: int
    size: int = 3
    stride: int = 1

    @nn.compact
    def __call__(
        self, images: Float[Array, "images height width channels"]
    ) -> Float[Array, "images new_height new_width features"]:
        """Maps `float32[N, H, W, C]` to `float32[N, H', W', features]`; see `convolve`."""
        shape = (self.size, self.size, images.shape[-1], self.features)
        kernel = self.param("kernel", _LECUN_NORMAL, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return convolve(images, kernel, self.stride) + bias


class StridedConvNet(nn.Module):
    """Convolutions of stride 2, then a dense layer on the flattened features.

    Attributes:
      channels: Number of output channels of each convolution.
      outputs: Width of the last layer.
      activation: Activation of every convolution.
      size: Height and width of the kernels.
    """

    channels: tuple[int, ...]
    outputs: int
    activation: Activation = nn.relu
    size: int = 3

    @nn.compact
    def __call__(
        self, images: Float[Array, "images height width channels"]
    ) -> Float[Array, "images outputs"]:
        """Maps `float32[N, H, W, C]` to `float32[N, outputs]`."""
        hidden = images
        for features in self.channels:
            hidden = self.activation(Convolution(features, self.size, stride=2)(hidden))
        return nn.Dense(self.outputs)(hidden.reshape(hidden.shape[0], -1))


class PooledConvNet(nn.Module):
    """Convolutions followed by 2x2 average pooling, then a mean over space and a dense layer.

    Attributes as in `StridedConvNet`. Height and width must be divisible by two to the power of
    the number of convolutions.
    """

    channels: tuple[int, ...]
    outputs: int
    activation: Activation = nn.relu

    @nn.compact
    def __call__(
        self, images: Float[Array, "images height width channels"]
    ) -> Float[Array, "images outputs"]:
        """Maps `float32[N, H, W, C]` to `float32[N, outputs]`."""
        hidden = images
        for features in self.channels:
            hidden = self.activation(Convolution(features)(hidden))
            count, height, width, _ = hidden.shape
            cells = hidden.reshape(count, height // 2, 2, width // 2, 2, features)
            hidden = cells.mean(axis=(2, 4))
        return nn.Dense(self.outputs)(hidden.mean(axis=(1, 2)))


class RecurrentNet(nn.Module):
    """A recurrent cell over a sequence, with a dense layer on every state.

    Attributes:
      cell: Recurrent cell, such as `nn.SimpleCell(16)` or `nn.GRUCell(16)`.
      outputs: Width of the last layer.
    """

    cell: nn.RNNCellBase
    outputs: int

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "sequences steps inputs"]
    ) -> Float[Array, "sequences steps outputs"]:
        """Maps `float32[N, T, inputs]` to `float32[N, T, outputs]`."""
        # Sequences are short; unrolled, the steps of many networks under one vmap fuse.
        states = nn.RNN(self.cell, unroll=inputs.shape[1])(inputs)
        return nn.Dense(self.outputs)(states)


class EmbeddingNet(nn.Module):
    """A bigram model: an embedding of the last symbol, a hidden layer, and logits of the next.

    Attributes:
      vocabulary: Number of symbols.
      width: Width of the embedding.
      hidden: Width of the hidden layer.
    """

    vocabulary: int
    width: int
    hidden: int

    @nn.compact
    def __call__(
        self, symbols: Int[Array, "sequences steps"]
    ) -> Float[Array, "sequences steps vocabulary"]:
        """Maps `int32[N, T]` to logits of the next symbol, `float32[N, T, vocabulary]`."""
        embedded = nn.Embed(self.vocabulary, self.width)(symbols)
        return nn.Dense(self.vocabulary)(nn.tanh(nn.Dense(self.hidden)(embedded)))


class AttentionNet(nn.Module):
    """One causal transformer block between an embedding and a dense layer.

    Attributes:
      vocabulary: Number of symbols.
      width: Width of the residual stream.
      heads: Number of attention heads; divides `width`.
    """

    vocabulary: int
    width: int
    heads: int

    @nn.compact
    def __call__(
        self, symbols: Int[Array, "sequences steps"]
    ) -> Float[Array, "sequences steps vocabulary"]:
        """Maps `int32[N, T]` to logits of the next symbol, `float32[N, T, vocabulary]`."""
        positions = self.param(
            "positions", nn.initializers.normal(0.3), (symbols.shape[1], self.width)
        )
        stream = nn.Embed(self.vocabulary, self.width)(symbols) + positions
        # No biases: the bias of the keys would have no effect, hence no gradient.
        attention = nn.MultiHeadDotProductAttention(self.heads, use_bias=False)
        stream += attention(nn.LayerNorm()(stream), mask=nn.make_causal_mask(symbols))
        hidden = nn.gelu(nn.Dense(2 * self.width)(nn.LayerNorm()(stream)))
        stream += nn.Dense(self.width)(hidden)
        return nn.Dense(self.vocabulary)(nn.LayerNorm()(stream))
