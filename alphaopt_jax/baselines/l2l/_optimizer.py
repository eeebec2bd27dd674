"""The LSTM optimizer as an optax transformation, and its parameters on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import functools
import os
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from alphaopt_jax.baselines._file_format import FileFormat
from alphaopt_jax.baselines.l2l import _network

_FORMAT = FileFormat(
    "l2l-lstm", "an LSTM optimizer", "alphaopt_jax.baselines.l2l.save_lstm", "l2l-mnist"
)

GROUPINGS: Mapping[str, Callable[[tuple[int, ...]], str]] = {
    "all": lambda shape: "all",
    "conv_and_dense": lambda shape: "conv" if len(shape) > 2 else "dense",
}
"""By name of the grouping, a function from the shape of a parameter leaf to its group."""
GROUPS = {"all": ("all",), "conv_and_dense": ("conv", "dense")}
"""Groups of each grouping."""


@dataclasses.dataclass(frozen=True)
class LSTMOptimizer:
    """A trained LSTM optimizer.

    Attributes:
      params: Parameters of the LSTM of each group, by group.
      grouping: "all" for one LSTM, or "conv_and_dense" for one LSTM for leaves of more than two
        axes and one for all others.
      log_sign_exponent: p of the log-sign encoding of gradients (appendix A of the paper); 0
        passes gradients unchanged.
      output_scale: Factor of the LSTM's output.

    Raises:
      ValueError: `grouping` is unknown, or `params` does not match it.
    """

    params: Mapping[str, chex.ArrayTree]
    grouping: str = "all"
    log_sign_exponent: float = 10.0
    output_scale: float = 0.1

    def __post_init__(self) -> None:
        """Checks the parameters against the grouping."""
        if self.grouping not in GROUPINGS:
            raise ValueError(
                f"Unknown grouping {self.grouping!r}; expected one of {sorted(GROUPINGS)}."
            )
        if set(self.params) != set(GROUPS[self.grouping]):
            raise ValueError(
                f"The grouping {self.grouping!r} has the groups {GROUPS[self.grouping]}, but params"
                f" has {tuple(self.params)}."
            )
        if len({_network.widths_of(params) for params in self.params.values()}) > 1:
            raise ValueError("The LSTMs of all groups must have the same widths.")


class LSTMState(NamedTuple):
    """State of `l2l`.

    Attributes:
      carries: Cell and hidden state of each layer: trees like the parameters, with leaves
        `float32[*shape, H]`.
    """

    carries: tuple[tuple[chex.ArrayTree, chex.ArrayTree], ...]


def l2l(optimizer: str | os.PathLike[str] | LSTMOptimizer) -> optax.GradientTransformation:
    """The LSTM optimizer. Its update is the LSTM's output, so it has no learning rate.

    Args:
      optimizer: A path, the name of a pretrained LSTM, or an `LSTMOptimizer`.

    Returns:
      An optax transformation with state `LSTMState`.

    References:
      Andrychowicz et al. 2016, *Learning to learn by gradient descent by gradient descent*.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> tx = l2l("l2l-mnist")
      >>> state = tx.init(jnp.ones(3))
      >>> updates, state = tx.update(jnp.ones(3), state)
      >>> updates.shape
      (3,)
    """
    learned = optimizer if isinstance(optimizer, LSTMOptimizer) else load_lstm(optimizer)
    networks = {
        group: _network.CoordinatewiseLSTM(_network.widths_of(params))
        for group, params in learned.params.items()
    }
    return optax.GradientTransformation(
        functools.partial(_init, networks), functools.partial(_update, networks, learned)
    )


def _init(networks: Mapping[str, _network.CoordinatewiseLSTM], params: optax.Params) -> LSTMState:
    widths = next(iter(networks.values())).widths

    def zeros(width: int) -> chex.ArrayTree:
        return jax.tree.map(lambda leaf: jnp.zeros((*leaf.shape, width), jnp.float32), params)

    return LSTMState(tuple((zeros(width), zeros(width)) for width in widths))


def _update(
    networks: Mapping[str, _network.CoordinatewiseLSTM],
    learned: LSTMOptimizer,
    updates: optax.Updates,
    state: LSTMState,
    params: optax.Params | None = None,
) -> tuple[optax.Updates, LSTMState]:
    del params
    grads, structure = jax.tree.flatten(updates)
    carries = [tuple(jax.tree.leaves(tree) for tree in layer) for layer in state.carries]
    steps, next_carries = [], []
    for index, grad in enumerate(grads):
        group = GROUPINGS[learned.grouping](grad.shape)
        carry = tuple((cells[index], hiddens[index]) for cells, hiddens in carries)
        features = _features(learned, grad.astype(jnp.float32))
        result: Any = networks[group].apply({"params": learned.params[group]}, carry, features)
        next_carry, output = result
        steps.append((learned.output_scale * output).astype(grad.dtype))
        next_carries.append(next_carry)

    def tree(layer: int, index: int) -> chex.ArrayTree:
        return jax.tree.unflatten(structure, [carry[layer][index] for carry in next_carries])

    layers = range(len(state.carries))
    new_state = LSTMState(tuple((tree(layer, 0), tree(layer, 1)) for layer in layers))
    return jax.tree.unflatten(structure, steps), new_state


def _features(learned: LSTMOptimizer, grad: chex.Array) -> chex.Array:
    if learned.log_sign_exponent:
        return _network.log_sign(grad, learned.log_sign_exponent)
    return grad[..., None]


def num_features(log_sign_exponent: float) -> int:
    """Returns the number of input features per coordinate."""
    return 2 if log_sign_exponent else 1


def save_lstm(path: str | os.PathLike[str], optimizer: LSTMOptimizer) -> None:
    """Writes an LSTM optimizer to a safetensors file.

    Args:
      path: The file to write.
      optimizer: The optimizer.
    """
    metadata = {
        "grouping": optimizer.grouping,
        "log_sign_exponent": repr(float(optimizer.log_sign_exponent)),
        "output_scale": repr(float(optimizer.output_scale)),
    }
    _FORMAT.save(path, optimizer.params, metadata)


def load_lstm(name_or_path: str | os.PathLike[str]) -> LSTMOptimizer:
    """Reads a file written by `save_lstm`, or a pretrained LSTM.

    Args:
      name_or_path: A path, or the name of a pretrained LSTM.

    Raises:
      FileNotFoundError: There is no such file and no such pretrained LSTM.
      ValueError: The file holds something else.
    """

    def build(params: dict[str, chex.ArrayTree], metadata: dict[str, str]) -> LSTMOptimizer:
        return LSTMOptimizer(
            params,
            grouping=metadata["grouping"],
            log_sign_exponent=float(metadata["log_sign_exponent"]),
            output_scale=float(metadata["output_scale"]),
        )

    return _FORMAT.load(name_or_path, build)
