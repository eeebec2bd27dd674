"""The learned optimizers: their networks, their learned parameters, and these on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import os

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from alphaopt_jax._storage import params as params_lib
from alphaopt_jax.baselines.li_malik._coordinate_features import NUM_OBSERVATION_FEATURES
from alphaopt_jax.pretrained import _files

_KIND_2016 = "li-malik-2016"
_KIND_2017 = "li-malik-2017"

Carry = tuple[chex.Array, chex.Array]
"""Cell and hidden state of an LSTM, `float32[..., W]` each."""


class StepNetwork(nn.Module):
    """One hidden layer of softplus units and a linear output: the mean step of 2016.

    Attributes:
      hidden: Units in the hidden layer.
      dimension: d, of the step.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> network = StepNetwork(hidden=50, dimension=3)
      >>> params = network.init(jax.random.key(0), jnp.ones(100))
      >>> network.apply(params, jnp.ones((7, 100))).shape
      (7, 3)
    """

    hidden: int
    dimension: int

    @nn.compact
    def __call__(self, features: chex.Array) -> chex.Array:
        """From features `float32[..., F]` to steps `float32[..., d]`."""
        hidden = nn.softplus(nn.Dense(self.hidden, name="hidden")(features))
        return nn.Dense(self.dimension, name="output")(hidden)


class RecurrentNetwork(nn.Module):
    """One LSTM layer and a linear output for every coordinate alike: the mean step of 2017.

    Attributes:
      width: Cells in the layer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> network = RecurrentNetwork(width=128)
      >>> carry = zero_carry((5,), 128)
      >>> params = network.init(jax.random.key(0), carry, jnp.ones((5, 3)))
      >>> carry, steps = network.apply(params, carry, jnp.ones((5, 3)))
      >>> steps.shape
      (5,)
    """

    width: int

    @nn.compact
    def __call__(self, carry: Carry, features: chex.Array) -> tuple[Carry, chex.Array]:
        """From a carry and features `float32[..., 3]` to the next carry and `float32[...]`."""
        carry, hidden = nn.OptimizedLSTMCell(self.width, name="lstm")(carry, features)
        return carry, nn.Dense(1, name="output")(hidden)[..., 0]


def zero_carry(shape: Sequence[int], width: int) -> Carry:
    """The first carry of coordinates of `shape`."""
    return jnp.zeros((*shape, width), jnp.float32), jnp.zeros((*shape, width), jnp.float32)


@dataclasses.dataclass(frozen=True)
class Policy2016:
    """A learned optimizer for functions of one dimension.

    Attributes:
      params: "network", the parameters of a `StepNetwork`, and "scales": "features",
        `float32[H + H d]`, which the features are divided by, and "step", `float32[]`, which the
        output is multiplied by.
      current_gradient: Whether the policy sees the gradient at the current point, as in
        `config.Config2016`.

    Raises:
      ValueError: The parameters do not fit each other.
    """

    params: Mapping[str, chex.ArrayTree]
    current_gradient: bool = True

    def __post_init__(self) -> None:
        """Refuses what does not fit, where it is made."""
        try:
            inputs = jnp.shape(self.params["network"]["hidden"]["kernel"])[0]
            sizes = {inputs, *jnp.shape(self.params["scales"]["features"])}
            dimension = self.dimension
            jnp.shape(self.params["scales"]["step"])
        except (KeyError, TypeError, IndexError):
            raise ValueError(
                "A policy of 2016 needs network/hidden, network/output, scales/features and"
                f" scales/step, but has {sorted(params_lib.flatten(self.params))}."
            ) from None
        if len(sizes) > 1 or inputs % (1 + dimension):
            raise ValueError(
                f"The network takes {inputs} features and gives steps of dimension {dimension};"
                f" the features' scales have shape {jnp.shape(self.params['scales']['features'])}."
                f" The number of features must be a multiple of {1 + dimension}."
            )

    @property
    def dimension(self) -> int:
        """Parameters of the functions that it optimizes."""
        return jnp.shape(self.params["network"]["output"]["kernel"])[1]

    @property
    def history(self) -> int:
        """Points that its features reach back to."""
        return jnp.shape(self.params["network"]["hidden"]["kernel"])[0] // (1 + self.dimension)


def step_2016(params: Mapping[str, chex.ArrayTree], features: chex.Array) -> chex.Array:
    """The mean step.

    The output's bias is tied so that where all features are 0 there is no step. A bias that is
    learned is never quite right, and where gradients have become small it would lead away.

    Args:
      params: As of a `Policy2016`.
      features: `float32[..., H + H d]`.

    Returns:
      `float32[..., d]`.
    """
    hidden, dimension = params["network"]["output"]["kernel"].shape
    network = StepNetwork(hidden, dimension)
    scales = params["scales"]

    def output(scaled: chex.Array) -> chex.Array:
        steps: chex.Array = network.apply({"params": params["network"]}, scaled)
        return steps

    at_rest = output(jnp.zeros_like(scales["features"]))
    return scales["step"] * (output(features / scales["features"]) - at_rest)


def init_2016(
    key: chex.PRNGKey, hidden: int, dimension: int, scales: Mapping[str, chex.Array]
) -> dict[str, chex.ArrayTree]:
    """Fresh parameters of a `Policy2016`, with given scales. Consumes `key`."""
    network = StepNetwork(hidden, dimension)
    params = jax.jit(network.init)(key, scales["features"])["params"]
    return {"network": params, "scales": dict(scales)}


def save_2016(path: str | os.PathLike[str], policy: Policy2016) -> None:
    """Writes a policy to a safetensors file.

    Args:
      path: The file to write.
      policy: What was learned.

    Example:
      >>> import tempfile, jax, jax.numpy as jnp
      >>> scales = {"features": jnp.ones(8), "step": jnp.ones(())}
      >>> policy = Policy2016(init_2016(jax.random.key(0), 5, 3, scales))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_2016(f"{folder}/mine.safetensors", policy)
      ...     load_2016(f"{folder}/mine.safetensors").history
      2
    """
    metadata = {"current_gradient": str(policy.current_gradient)}
    params_lib.write_params(path, policy.params, kind=_KIND_2016, metadata=metadata)


def load_2016(name_or_path: str | os.PathLike[str]) -> Policy2016:
    """Reads what `save_2016` wrote, or a shipped policy by its name.

    Args:
      name_or_path: A path, or the name of a shipped policy.

    Returns:
      The policy.

    Raises:
      FileNotFoundError: There is no such file and no such shipped policy.
      ValueError: The file is not a policy of 2016.
    """
    path = _files.find_file(
        name_or_path,
        _files.BASELINES,
        what="policy of Li & Malik 2016",
        otherwise=" `alphaopt train-baseline li-malik-logistic FOLDER` trains one.",
    )
    params, metadata = params_lib.read_params(
        path,
        kind=_KIND_2016,
        what="a policy of Li & Malik 2016",
        written_by="alphaopt_jax.baselines.li_malik.save_2016",
    )
    try:
        return Policy2016(params, {"True": True, "False": False}[metadata["current_gradient"]])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)!r} does not hold a usable policy. {error}") from error


@dataclasses.dataclass(frozen=True)
class Policy2017:
    """A learned optimizer for any number of parameters.

    Attributes:
      params: "network", the parameters of a `RecurrentNetwork`, and "scales": "features",
        `float32[3]`, which the features are divided by, and "step", `float32[]`, which the output
        is multiplied by.

    Raises:
      ValueError: The parameters do not fit each other.
    """

    params: Mapping[str, chex.ArrayTree]

    def __post_init__(self) -> None:
        """Refuses what does not fit, where it is made."""
        try:
            inputs = jnp.shape(self.params["network"]["lstm"]["ii"]["kernel"])[0]
            scales = jnp.shape(self.params["scales"]["features"])
            jnp.shape(self.params["network"]["output"]["kernel"])
            jnp.shape(self.params["scales"]["step"])
        except (KeyError, TypeError, IndexError):
            raise ValueError(
                "A policy of 2017 needs network/lstm, network/output, scales/features and"
                f" scales/step, but has {sorted(params_lib.flatten(self.params))}."
            ) from None
        if (inputs, *scales) != (NUM_OBSERVATION_FEATURES, NUM_OBSERVATION_FEATURES):
            raise ValueError(
                f"A policy of 2017 sees {NUM_OBSERVATION_FEATURES} features of a coordinate; this"
                f" network takes {inputs}, and the features' scales have shape {scales}."
            )

    @property
    def width(self) -> int:
        """Cells of its LSTM."""
        return jnp.shape(self.params["network"]["output"]["kernel"])[0]


def step_2017(
    params: Mapping[str, chex.ArrayTree], carry: Carry, features: chex.Array
) -> tuple[Carry, chex.Array]:
    """The mean step.

    Args:
      params: As of a `Policy2017`.
      carry: The LSTM's.
      features: `float32[..., 3]`.

    Returns:
      The next carry and `float32[...]`.
    """
    network = RecurrentNetwork(params["network"]["output"]["kernel"].shape[0])
    carry, outputs = network.apply(
        {"params": params["network"]}, carry, features / params["scales"]["features"]
    )
    return carry, params["scales"]["step"] * outputs


def init_2017(
    key: chex.PRNGKey, width: int, scales: Mapping[str, chex.Array]
) -> dict[str, chex.ArrayTree]:
    """Fresh parameters of a `Policy2017`, with given scales. Consumes `key`."""
    network = RecurrentNetwork(width)
    params = jax.jit(network.init)(key, zero_carry((), width), scales["features"])["params"]
    return {"network": params, "scales": dict(scales)}


def save_2017(path: str | os.PathLike[str], policy: Policy2017) -> None:
    """Writes a policy to a safetensors file.

    Args:
      path: The file to write.
      policy: What was learned.
    """
    params_lib.write_params(path, policy.params, kind=_KIND_2017, metadata={})


def load_2017(name_or_path: str | os.PathLike[str]) -> Policy2017:
    """Reads what `save_2017` wrote, or a shipped policy by its name.

    Args:
      name_or_path: A path, or the name of a shipped policy.

    Returns:
      The policy.

    Raises:
      FileNotFoundError: There is no such file and no such shipped policy.
      ValueError: The file is not a policy of 2017.
    """
    path = _files.find_file(
        name_or_path,
        _files.BASELINES,
        what="policy of Li & Malik 2017",
        otherwise=" `alphaopt train-baseline li-malik-2017 FOLDER` trains one.",
    )
    params, _ = params_lib.read_params(
        path,
        kind=_KIND_2017,
        what="a policy of Li & Malik 2017",
        written_by="alphaopt_jax.baselines.li_malik.save_2017",
    )
    try:
        return Policy2017(params)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)!r} does not hold a usable policy. {error}") from error
