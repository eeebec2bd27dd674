"""What an agent trains a network from: initial parameters and factors of rates, learned with it.

The agent chooses every parameter's rate by what it sees during training. What is true of one
network on all episodes, such as that its last layer is to learn faster than the others, need not be
seen anew each time: it is learned with the initial parameters, as one factor for each parameter.

Source: Li, Zhou, Chen & Li 2017, *Meta-SGD: Learning to Learn Quickly for Few-Shot Learning*, whose
rates are such factors without an agent.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import chex

from alphaopt_jax._storage import params as params_lib
from alphaopt_jax.pretrained import _files

_KIND = "alphaopt-initialization"


class Initialization(NamedTuple):
    """Where training starts.

    Attributes:
      params: The network's parameters; None where it starts afresh.
      rate_factors: What the agent's rates are multiplied by, shaped like the parameters; None where
        they are taken as they are.
    """

    params: chex.ArrayTree | None = None
    rate_factors: chex.ArrayTree | None = None


def save_initialization(path: str | os.PathLike[str], initialization: Initialization) -> None:
    """Writes what networks start from to a safetensors file.

    Args:
      path: The file to write.
      initialization: As of `FewShotResult.initialization`; its parameters are not None.
    """
    trees = {name: tree for name, tree in initialization._asdict().items() if tree is not None}
    params_lib.write_params(path, trees, kind=_KIND, metadata={})


def load_initialization(name_or_path: str | os.PathLike[str]) -> Initialization:
    """Reads what `save_initialization` wrote, or what came with a shipped agent.

    Args:
      name_or_path: A path, or a name.

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
        written_by="alphaopt_jax.meta.initialization.save_initialization",
        check=lambda shapes, metadata: _check(os.fspath(path), shapes),
    )
    return Initialization(trees["params"], trees.get("rate_factors"))


def _check(name: str, shapes: dict[str, Any]) -> None:
    params, factors = shapes.get("params"), shapes.get("rate_factors")
    if params is None or not set(shapes) <= set(Initialization._fields):
        raise ValueError(
            f"{name!r} holds {', '.join(sorted(shapes)) or 'nothing'}; an initialization holds"
            f" {' and '.join(Initialization._fields)}, the second where there are any."
        )
    if factors is not None and factors != params:
        raise ValueError(f"{name!r} holds rate factors that are not shaped like the parameters.")
