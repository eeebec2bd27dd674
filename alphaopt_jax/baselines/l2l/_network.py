"""The coordinatewise LSTM and what it sees of a gradient.

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
"""A cell and a hidden state, `float32[..., H]`, for each layer."""


class CoordinatewiseLSTM(nn.Module):
    """A few LSTM layers and a linear output, applied to every coordinate alike.

    Attributes:
      widths: H of each layer.

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
        """From a carry and features `float32[..., F]` to the next carry and `float32[...]`."""
        following = []
        for index, (width, state) in enumerate(zip(self.widths, carry, strict=True)):
            state, features = nn.OptimizedLSTMCell(width, name=f"layer_{index}")(state, features)
            following.append(state)
        return tuple(following), nn.Dense(1, name="output")(features)[..., 0]

    def zero_carry(self, shape: Sequence[int]) -> Carry:
        """The first carry of coordinates of `shape`."""
        return tuple(
            (jnp.zeros((*shape, width)), jnp.zeros((*shape, width))) for width in self.widths
        )


def widths_of(params: chex.ArrayTree) -> tuple[int, ...]:
    """The `widths` that a network's parameters belong to."""
    layers = sorted(name for name in params if name.startswith("layer_"))
    return tuple(params[name]["hi"]["kernel"].shape[0] for name in layers)


def log_sign(gradient: Float[Array, "*shape"], exponent: float) -> Float[Array, "*shape 2"]:
    """The logarithm and the sign of a gradient, so that all sizes are seen (appendix A).

    Args:
      gradient: `float32[...]`.
      exponent: p; what is smaller than exp(-p) is told by its value, times exp(p), in place of its
        sign.

    Returns:
      `float32[..., 2]`.

    Example:
      >>> log_sign(jnp.array([1.0, -1e-9, 0.0]), 10.0).round(3).tolist()
      [[0.0, 1.0], [-1.0, -0.0], [-1.0, 0.0]]
    """
    size = jnp.abs(gradient)
    large = size >= np.exp(-exponent)
    # The logarithm is taken of 1 where it is not used, or the derivative at 0 would be NaN.
    log = jnp.log(jnp.where(large, size, 1.0)) / exponent
    return jnp.stack(
        [
            jnp.where(large, log, -1.0),
            jnp.where(large, jnp.sign(gradient), np.exp(exponent) * gradient),
        ],
        axis=-1,
    )


def init_params(key: Key[Array, ""], widths: Sequence[int], num_features: int) -> chex.ArrayTree:
    """Fresh parameters, a nested dict of float32 arrays. Consumes `key`."""
    network = CoordinatewiseLSTM(tuple(widths))
    features = jnp.zeros((1, num_features), jnp.float32)
    variables = jax.jit(network.init)(key, network.zero_carry((1,)), features)
    return variables["params"]
