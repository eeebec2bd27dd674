"""The coordinatewise LSTM and its input features.

Source: Andrychowicz et al. 2016, *Learning to learn by gradient descent by gradient descent*,
section 2.1 and appendix A.
"""

from __future__ import annotations

from collections.abc import Sequence

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
import numpy as np

Carry = tuple[tuple[Float[Array, "*shape _width"], Float[Array, "*shape _width"]], ...]
"""Cell and hidden state of each layer, `float32[..., H]`."""


class CoordinatewiseLSTM(nn.Module):
    """LSTM layers and a linear output, applied to every coordinate with shared parameters.

    Attributes:
      widths: Hidden units H of each layer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> network = CoordinatewiseLSTM((20, 20))
      >>> carry = network.zero_carry((5,))
      >>> params = network.init(jax.random.key(0), carry, jnp.ones((5, 2)))
      >>> carry, outputs = network.apply(params, carry, jnp.ones((5, 2)))
      >>> outputs.shape
      (5,)
    """

    widths: Sequence[int] = (20, 20)

    @nn.compact
    def __call__(
        self, carry: Carry, features: Float[Array, "*shape features"]
    ) -> tuple[Carry, Float[Array, "*shape"]]:
        """Maps a carry and features `float32[..., F]` to the next carry and `float32[...]`."""
        next_carry = []
        for index, (width, state) in enumerate(zip(self.widths, carry, strict=True)):
            state, features = nn.OptimizedLSTMCell(width, name=f"layer_{index}")(state, features)
            next_carry.append(state)
        return tuple(next_carry), nn.Dense(1, name="output")(features)[..., 0]

    def zero_carry(self, shape: Sequence[int]) -> Carry:
        """Returns the initial carry for coordinates of the given shape."""
        return tuple(
            (jnp.zeros((*shape, width)), jnp.zeros((*shape, width))) for width in self.widths
        )


def widths_of(params: chex.ArrayTree) -> tuple[int, ...]:
    """Returns `CoordinatewiseLSTM.widths` of a network with the given parameters."""
    layers = sorted(name for name in params if name.startswith("layer_"))
    return tuple(params[name]["hi"]["kernel"].shape[0] for name in layers)


def log_sign(gradient: Float[Array, "*shape"], exponent: float) -> Float[Array, "*shape 2"]:
    """Encodes a gradient by its logarithm and sign, for gradients of any magnitude (appendix A).

    Args:
      gradient: `float32[...]`.
      exponent: p. Below the magnitude exp(-p), the gradient times exp(p) replaces its sign.

    Returns:
      `float32[..., 2]`.

    Example:
      >>> log_sign(jnp.array([1.0, -1e-9, 0.0]), 10.0).round(3).tolist()
      [[0.0, 1.0], [-1.0, -0.0], [-1.0, 0.0]]
    """
    size = jnp.abs(gradient)
    large = size >= np.exp(-exponent)
    # log(1) where the logarithm is unused: the derivative of log(0) would be NaN.
    log = jnp.log(jnp.where(large, size, 1.0)) / exponent
    return jnp.stack(
        [
            jnp.where(large, log, -1.0),
            jnp.where(large, jnp.sign(gradient), np.exp(exponent) * gradient),
        ],
        axis=-1,
    )


def init_params(key: Key[Array, ""], widths: Sequence[int], num_features: int) -> chex.ArrayTree:
    """Returns fresh parameters, a nested dict of float32 arrays. Consumes `key`."""
    network = CoordinatewiseLSTM(tuple(widths))
    features = jnp.zeros((1, num_features), jnp.float32)
    variables = jax.jit(network.init)(key, network.zero_carry((1,)), features)
    return variables["params"]
