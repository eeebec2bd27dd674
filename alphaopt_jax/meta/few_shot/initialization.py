"""Initial parameters of a network, and factors of an agent's rates, as learned over many episodes.

The agent chooses rates by its observations. Differences between a network's
parameters that hold for all episodes, such as a last layer that should learn faster, are learned
once, as one factor of the rate per parameter.

Source: Li, Zhou, Chen & Li 2017, *Meta-SGD: Learning to Learn Quickly for Few-Shot Learning*, which
learns such factors as the rates of gradient descent.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import chex

from alphaopt_jax._storage import params as params_lib
from alphaopt_jax.pretrained import _files

_KIND = "alphaopt-initialization"


class Initialization(NamedTuple):
    """Initial parameters and rate factors of a network.

    Attributes:
      params: The network's initial parameters; None for fresh ones.
      rate_factors: Factors of the agent's rates, shaped like the parameters; None for none.
    """

    params: chex.ArrayTree | None = None
    rate_factors: chex.ArrayTree | None = None


def save_initialization(path: str | os.PathLike[str], initialization: Initialization) -> None:
    """Writes an initialization to a safetensors file.

    Args:
      path: The file to write.
      initialization: Initialization with parameters, as of `FewShotResult`.
    """
    trees = {name: tree for name, tree in initialization._asdict().items() if tree is not None}
    params_lib.write_params(path, trees, kind=_KIND, metadata={})


def load_initialization(name_or_path: str | os.PathLike[str]) -> Initialization:
    """Reads an initialization, from a file or of a pretrained agent.

    Args:
      name_or_path: Path of a file from `save_initialization`, or name of a pretrained agent.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file holds something else, or factors that do not fit its parameters.

    Example:
      >>> initialization = load_initialization("omniglot-learned")
      >>> initialization.params["logits"]["bias"].shape
      (20,)
    """
    path = _files.find_file(name_or_path, _files.INITIALIZATIONS, what="initialization")
    trees, _ = params_lib.read_params(
        path,
        kind=_KIND,
        what="an initialization",
        written_by="alphaopt_jax.meta.few_shot.save_initialization",
        check=lambda shapes, metadata: _check(os.fspath(path), shapes),
    )
    return Initialization(trees["params"], trees.get("rate_factors"))


def _check(name: str, shapes: dict[str, Any]) -> None:
    params, factors = shapes.get("params"), shapes.get("rate_factors")
    if params is None or not set(shapes) <= set(Initialization._fields):
        raise ValueError(
            f"{name!r} holds {', '.join(sorted(shapes)) or 'nothing'}; an initialization holds"
            " params, and optionally rate_factors."
        )
    if factors is not None and factors != params:
        raise ValueError(f"{name!r} holds rate factors that are not shaped like the parameters.")
