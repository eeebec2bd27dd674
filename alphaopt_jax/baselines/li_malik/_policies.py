"""Policies of the learned optimizers: their networks, and their parameters on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import os

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from alphaopt_jax._storage import params as params_lib
from alphaopt_jax.baselines._file_format import FileFormat
from alphaopt_jax.baselines.li_malik._coordinate_features import NUM_OBSERVATION_FEATURES

_FORMAT_2016 = FileFormat(
    "li-malik-2016",
    "a policy of Li & Malik 2016",
    "alphaopt_jax.baselines.li_malik.save_2016",
    "li-malik-logistic",
)
_FORMAT_2017 = FileFormat(
    "li-malik-2017",
    "a policy of Li & Malik 2017",
    "alphaopt_jax.baselines.li_malik.save_2017",
    "li-malik-2017",
)

Carry = tuple[chex.Array, chex.Array]
"""Cell and hidden state of an LSTM, `float32[..., W]` each."""


class StepNetwork(nn.Module):
    """The network of 2016: one hidden layer of softplus units, and a linear output.

    Attributes:
      hidden: Hidden units.
      dimension: d, the dimension of the step.

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
        """Maps features `float32[..., F]` to steps `float32[..., d]`."""
        hidden = nn.softplus(nn.Dense(self.hidden, name="hidden")(features))
        return nn.Dense(self.dimension, name="output")(hidden)


class RecurrentNetwork(nn.Module):
    """The network of 2017: one LSTM layer and a linear output, shared by all coordinates.

    Attributes:
      width: Hidden units of the LSTM.

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
        """Maps a carry and features `float32[..., 3]` to the next carry and `float32[...]`."""
        carry, hidden = nn.OptimizedLSTMCell(self.width, name="lstm")(carry, features)
        return carry, nn.Dense(1, name="output")(hidden)[..., 0]


def zero_carry(shape: Sequence[int], width: int) -> Carry:
    """Returns the initial carry for coordinates of the given shape."""
    return jnp.zeros((*shape, width), jnp.float32), jnp.zeros((*shape, width), jnp.float32)


@dataclasses.dataclass(frozen=True)
class Policy2016:
    """A trained policy for functions of one dimension d.

    Attributes:
      params: "network", the parameters of the network, and "scales": "features",
        `float32[H + H d]`, the divisors of the features, and "step", `float32[]`, the factor of the
        output.
      current_gradient: As in `Config2016`.

    Raises:
      ValueError: The shapes of `params` are inconsistent, or an entry is missing.
    """

    params: Mapping[str, chex.ArrayTree]
    current_gradient: bool = True

    def __post_init__(self) -> None:
        """Checks the shapes of the parameters."""
        try:
            inputs = jnp.shape(self.params["network"]["hidden"]["kernel"])[0]
            sizes = {inputs, *jnp.shape(self.params["scales"]["features"])}
            dimension = self.dimension
            jnp.shape(self.params["scales"]["step"])
        except (KeyError, TypeError, IndexError):
            raise _missing_entries(self.params, year=2016, layer="hidden") from None
        if len(sizes) > 1 or inputs % (1 + dimension):
            raise ValueError(
                f"The network takes {inputs} features and returns steps of dimension {dimension};"
                f" the features' scales have shape {jnp.shape(self.params['scales']['features'])}."
                f" The number of features must be a multiple of {1 + dimension}."
            )

    @property
    def dimension(self) -> int:
        """d, the number of parameters of the functions that it optimizes."""
        return jnp.shape(self.params["network"]["output"]["kernel"])[1]

    @property
    def history(self) -> int:
        """H, the number of past points in its features."""
        return jnp.shape(self.params["network"]["hidden"]["kernel"])[0] // (1 + self.dimension)


def step_2016(params: Mapping[str, chex.ArrayTree], features: chex.Array) -> chex.Array:
    """Returns the mean step.

    The output at zero features is subtracted, so that there is no step if all features are 0. A
    learned bias is never exact, and would lead away from a minimum once gradients are small.

    Args:
      params: Parameters of a `Policy2016`.
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

    at_zero = output(jnp.zeros_like(scales["features"]))
    return scales["step"] * (output(features / scales["features"]) - at_zero)


def init_2016(
    key: chex.PRNGKey, hidden: int, dimension: int, scales: Mapping[str, chex.Array]
) -> dict[str, chex.ArrayTree]:
    """Returns fresh parameters of a `Policy2016` with these scales. Consumes `key`."""
    network = StepNetwork(hidden, dimension)
    params = jax.jit(network.init)(key, scales["features"])["params"]
    return {"network": params, "scales": dict(scales)}


def save_2016(path: str | os.PathLike[str], policy: Policy2016) -> None:
    """Writes a policy to a safetensors file.

    Args:
      path: The file to write.
      policy: The policy.

    Example:
      >>> import tempfile
      >>> policy = load_2016("li-malik-logistic")
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_2016(f"{folder}/mine.safetensors", policy)
      ...     load_2016(f"{folder}/mine.safetensors").history
      25
    """
    metadata = {"current_gradient": str(policy.current_gradient)}
    _FORMAT_2016.save(path, policy.params, metadata)


def load_2016(name_or_path: str | os.PathLike[str]) -> Policy2016:
    """Reads a file written by `save_2016`, or a pretrained policy.

    Args:
      name_or_path: A path, or the name of a pretrained policy.

    Returns:
      The policy.

    Raises:
      FileNotFoundError: There is no such file and no such pretrained policy.
      ValueError: The file is not a policy of 2016.
    """

    def build(params: dict[str, chex.ArrayTree], metadata: dict[str, str]) -> Policy2016:
        return Policy2016(params, {"True": True, "False": False}[metadata["current_gradient"]])

    return _FORMAT_2016.load(name_or_path, build)


@dataclasses.dataclass(frozen=True)
class Policy2017:
    """A trained policy for any number of parameters.

    Attributes:
      params: "network", the parameters of the network, and "scales": "features", `float32[3]`, the
        divisors of the features, and "step", `float32[]`, the factor of the output.

    Raises:
      ValueError: The shapes of `params` are inconsistent, or an entry is missing.
    """

    params: Mapping[str, chex.ArrayTree]

    def __post_init__(self) -> None:
        """Checks the shapes of the parameters."""
        try:
            inputs = jnp.shape(self.params["network"]["lstm"]["ii"]["kernel"])[0]
            scales = jnp.shape(self.params["scales"]["features"])
            jnp.shape(self.params["network"]["output"]["kernel"])
            jnp.shape(self.params["scales"]["step"])
        except (KeyError, TypeError, IndexError):
            raise _missing_entries(self.params, year=2017, layer="lstm") from None
        if (inputs, *scales) != (NUM_OBSERVATION_FEATURES, NUM_OBSERVATION_FEATURES):
            raise ValueError(
                f"A policy of 2017 takes {NUM_OBSERVATION_FEATURES} features per coordinate; this"
                f" network takes {inputs}, and the features' scales have shape {scales}."
            )

    @property
    def width(self) -> int:
        """Hidden units of its LSTM."""
        return jnp.shape(self.params["network"]["output"]["kernel"])[0]


def step_2017(
    params: Mapping[str, chex.ArrayTree], carry: Carry, features: chex.Array
) -> tuple[Carry, chex.Array]:
    """Returns the mean step.

    Args:
      params: Parameters of a `Policy2017`.
      carry: Carry of the LSTM.
      features: `float32[..., 3]`.

    Returns:
      The next carry, and `float32[...]`.
    """
    network = RecurrentNetwork(params["network"]["output"]["kernel"].shape[0])
    carry, outputs = network.apply(
        {"params": params["network"]}, carry, features / params["scales"]["features"]
    )
    return carry, params["scales"]["step"] * outputs


def init_2017(
    key: chex.PRNGKey, width: int, scales: Mapping[str, chex.Array]
) -> dict[str, chex.ArrayTree]:
    """Returns fresh parameters of a `Policy2017` with these scales. Consumes `key`."""
    network = RecurrentNetwork(width)
    params = jax.jit(network.init)(key, zero_carry((), width), scales["features"])["params"]
    return {"network": params, "scales": dict(scales)}


def save_2017(path: str | os.PathLike[str], policy: Policy2017) -> None:
    """Writes a policy to a safetensors file.

    Args:
      path: The file to write.
      policy: The policy.
    """
    _FORMAT_2017.save(path, policy.params, {})


def load_2017(name_or_path: str | os.PathLike[str]) -> Policy2017:
    """Reads a file written by `save_2017`, or a pretrained policy.

    Args:
      name_or_path: A path, or the name of a pretrained policy.

    Returns:
      The policy.

    Raises:
      FileNotFoundError: There is no such file and no such pretrained policy.
      ValueError: The file is not a policy of 2017.
    """
    return _FORMAT_2017.load(name_or_path, lambda params, metadata: Policy2017(params))


def _missing_entries(params: Mapping[str, chex.ArrayTree], *, year: int, layer: str) -> ValueError:
    return ValueError(
        f"A policy of {year} needs network/{layer}, network/output, scales/features and"
        f" scales/step, but has {sorted(params_lib.flatten(params))}."
    )
