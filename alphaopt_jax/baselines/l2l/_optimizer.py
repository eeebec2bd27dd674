"""The LSTM optimizer: its learned parameters on disk, and as an optax transformation."""

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

from alphaopt_jax._storage import params as params_lib
from alphaopt_jax.baselines.l2l import _network
from alphaopt_jax.pretrained import _files

_KIND = "l2l-lstm"
_OTHERWISE = " `alphaopt train-baseline l2l-mnist FOLDER` trains one."

GROUPINGS: Mapping[str, Callable[[tuple[int, ...]], str]] = {
    "all": lambda shape: "all",
    "conv_and_dense": lambda shape: "conv" if len(shape) > 2 else "dense",
}
"""From a parameter's shape to the group whose LSTM moves it, by the grouping's name."""
GROUPS = {"all": ("all",), "conv_and_dense": ("conv", "dense")}


@dataclasses.dataclass(frozen=True)
class LSTMOptimizer:
    """Learned parameters, and the constants that they were learned with.

    Attributes:
      params: By group: parameters of a `network.CoordinatewiseLSTM`.
      grouping: One of `GROUPINGS`: which parameters share an LSTM.
      log_sign_exponent: p of `network.log_sign`; 0 passes the gradient as it is.
      output_scale: What the LSTM's output is multiplied by.

    Raises:
      ValueError: The parameters do not fit the grouping.
    """

    params: Mapping[str, chex.ArrayTree]
    grouping: str = "all"
    log_sign_exponent: float = 10.0
    output_scale: float = 0.1

    def __post_init__(self) -> None:
        """Refuses what does not fit, where it is made."""
        if self.grouping not in GROUPINGS:
            raise ValueError(f"There is no grouping {self.grouping!r}: {sorted(GROUPINGS)}.")
        if set(self.params) != set(GROUPS[self.grouping]):
            raise ValueError(
                f"The grouping {self.grouping!r} has the groups {GROUPS[self.grouping]}, but there"
                f" are parameters for {tuple(self.params)}."
            )
        if len({_network.widths_of(params) for params in self.params.values()}) > 1:
            raise ValueError("The LSTMs of all groups must have layers of the same widths.")


class LSTMState(NamedTuple):
    """What the LSTM remembers.

    Attributes:
      carries: For each layer a cell and a hidden state: trees like the parameters, each leaf
        `float32[*shape, H]`.
    """

    carries: tuple[tuple[chex.ArrayTree, chex.ArrayTree], ...]


def l2l(optimizer: str | os.PathLike[str] | LSTMOptimizer) -> optax.GradientTransformation:
    """The optimizer that learned to learn by gradient descent.

    There is nothing to set: the LSTM's output is the step.

    Args:
      optimizer: A path, the name of a shipped one, or learned parameters.

    Returns:
      An optax transformation; `LSTMState` is its state.

    References:
      Andrychowicz et al. 2016, *Learning to learn by gradient descent by gradient descent*.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> params = {"all": _network.init_params(jax.random.key(0), (20, 20), num_features=2)}
      >>> tx = l2l(LSTMOptimizer(params))
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
    steps, following = [], []
    for index, grad in enumerate(grads):
        group = GROUPINGS[learned.grouping](grad.shape)
        carry = tuple((cells[index], hiddens[index]) for cells, hiddens in carries)
        seen = _features(learned, grad.astype(jnp.float32))
        moved: Any = networks[group].apply({"params": learned.params[group]}, carry, seen)
        carry, output = moved
        steps.append((learned.output_scale * output).astype(grad.dtype))
        following.append(carry)

    def tree(layer: int, which: int) -> chex.ArrayTree:
        return jax.tree.unflatten(structure, [carry[layer][which] for carry in following])

    layers = range(len(state.carries))
    new_state = LSTMState(tuple((tree(layer, 0), tree(layer, 1)) for layer in layers))
    return jax.tree.unflatten(structure, steps), new_state


def _features(learned: LSTMOptimizer, grad: chex.Array) -> chex.Array:
    if learned.log_sign_exponent:
        return _network.log_sign(grad, learned.log_sign_exponent)
    return grad[..., None]


def num_features(log_sign_exponent: float) -> int:
    """How many numbers the LSTM sees of a gradient."""
    return 2 if log_sign_exponent else 1


def save_lstm(path: str | os.PathLike[str], optimizer: LSTMOptimizer) -> None:
    """Writes learned parameters and their constants to a safetensors file.

    Args:
      path: The file to write.
      optimizer: What was learned.
    """
    metadata = {
        "grouping": optimizer.grouping,
        "log_sign_exponent": repr(float(optimizer.log_sign_exponent)),
        "output_scale": repr(float(optimizer.output_scale)),
    }
    params_lib.write_params(path, optimizer.params, kind=_KIND, metadata=metadata)


def load_lstm(name_or_path: str | os.PathLike[str]) -> LSTMOptimizer:
    """Reads what `save_lstm` wrote, or a shipped optimizer by its name.

    Args:
      name_or_path: A path, or the name of a shipped optimizer.

    Raises:
      FileNotFoundError: There is no such file and no such shipped optimizer.
      ValueError: The file holds something else.
    """
    path = _files.find_file(
        name_or_path, _files.BASELINES, what="LSTM optimizer", otherwise=_OTHERWISE
    )
    params, metadata = params_lib.read_params(
        path,
        kind=_KIND,
        what="an LSTM optimizer",
        written_by="alphaopt_jax.baselines.l2l.save_lstm",
    )
    try:
        return LSTMOptimizer(
            params,
            grouping=metadata["grouping"],
            log_sign_exponent=float(metadata["log_sign_exponent"]),
            output_scale=float(metadata["output_scale"]),
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)!r} holds no usable LSTM. {error}") from error
