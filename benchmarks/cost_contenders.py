"""The optimizers whose cost is compared, and what a learned optimizer cost until now."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math
from typing import Any, NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

import alphaopt_jax as alphaopt
from alphaopt_jax.config import adaptive_config

ADAM = "Adam"
FROZEN, ADAPTIVE, ONLINE = "AlphaOpt, frozen", "AlphaOpt, adaptive", "AlphaOpt, online"
COMPACT = "AlphaOpt, frozen, compact"


class Contender(NamedTuple):
    """An optimizer and where it is run.

    Attributes:
      make: Makes it.
      largest: Most parameters that it is run on; beyond, it does not fit or takes minutes.
    """

    make: Callable[[], optax.GradientTransformation]
    largest: float = math.inf


def coordinatewise_lstm(hidden: int = 20, layers: int = 2) -> optax.GradientTransformation:
    """The optimizer of Andrychowicz et al. 2016 with random weights, for what it costs.

    Every parameter has the carries of an LSTM of its own, 80 numbers.
    """
    network = _LSTM(hidden, layers)

    def init(params: optax.Params) -> Any:
        leaves = jax.tree.leaves(params)
        carries = [
            [
                (jnp.zeros((leaf.size, hidden)), jnp.zeros((leaf.size, hidden)))
                for _ in range(layers)
            ]
            for leaf in leaves
        ]
        sizes = (jnp.zeros((1, 2)), [(jnp.zeros((1, hidden)), jnp.zeros((1, hidden)))] * layers)
        return network.init(jax.random.key(0), *sizes), carries

    def update(updates: optax.Updates, state: Any, params: Any = None) -> Any:
        del params
        weights, carries = state
        leaves, structure = jax.tree.flatten(updates)
        moved, new_carries = [], []
        for grad, carry in zip(leaves, carries, strict=True):
            output, carry = network.apply(weights, _preprocess(grad.ravel()), carry)
            moved.append((0.1 * output).reshape(grad.shape).astype(grad.dtype))
            new_carries.append(carry)
        return jax.tree.unflatten(structure, moved), (weights, new_carries)

    return optax.GradientTransformation(init, update)


class _LSTM(nn.Module):
    hidden: int
    layers: int

    @nn.compact
    def __call__(self, inputs: chex.Array, carries: Any) -> tuple[chex.Array, Any]:
        new = []
        for carry in carries:
            carry, inputs = nn.OptimizedLSTMCell(self.hidden)(carry, inputs)
            new.append(carry)
        return nn.Dense(1)(inputs)[..., 0], new


def _preprocess(grad: chex.Array, power: float = 10.0) -> chex.Array:
    """Logarithm and sign of a gradient (Andrychowicz et al. 2016, appendix A)."""
    grad = grad.astype(jnp.float32)
    size = jnp.abs(grad)
    large = size >= jnp.exp(-power)
    first = jnp.where(large, jnp.log(size + 1e-30) / power, -1.0)
    return jnp.stack([first, jnp.where(large, jnp.sign(grad), jnp.exp(power) * grad)], axis=-1)


CONTENDERS: dict[str, Contender] = {
    ADAM: Contender(lambda: optax.adam(1e-3)),
    FROZEN: Contender(alphaopt.alphaopt),
    COMPACT: Contender(
        lambda: alphaopt.alphaopt(
            config=dataclasses.replace(adaptive_config(), moment_dtype="bfloat16")
        )
    ),
    ADAPTIVE: Contender(lambda: alphaopt.alphaopt(learn=True)),
    ONLINE: Contender(lambda: alphaopt.alphaopt(agent=None)),
    "Prodigy": Contender(optax.contrib.prodigy),
    "Muon": Contender(lambda: optax.contrib.muon(1e-3), largest=1e6),
    "coordinatewise LSTM": Contender(coordinatewise_lstm, largest=1e6),
}
