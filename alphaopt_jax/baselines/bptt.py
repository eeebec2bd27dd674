"""Backpropagation through time, which trains the parameters of any differentiable optimizer.

An *episode* optimizes a batch of new tasks for `horizon` steps. It is cut into unrolls. After each
unroll the optimizer's parameters take one Adam step on the gradient of the losses within it; the
state at its start is treated as a constant (truncated backpropagation). The gradients passed to the
optimizer are treated as constants too, unless `second_derivatives` is set.

Source: Andrychowicz et al. 2016, *Learning to learn by gradient descent by gradient descent*,
section 2 and appendix.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import os
from typing import Any, NamedTuple

import chex
import jax

from alphaopt_jax.baselines._bptt_trainer import (
    BackpropagationConfig,
    TrainableOptimizer,
    Trainer,
)
from alphaopt_jax.tasks.task import Family

__all__ = ["BackpropagationConfig", "BackpropagationResult", "TrainableOptimizer", "train"]

_SEARCH_FRACTION = 0.15  # Episodes per candidate learning rate, relative to the full training.


class BackpropagationResult(NamedTuple):
    """Result of `train`.

    Attributes:
      params: Parameters of the best optimizer, NumPy arrays.
      score: Mean logarithm of its losses along the validation episodes. Losses are averaged over
        the tasks of a family before the logarithm, as in the paper's curves.
      learning_rate: Learning rate of the meta-optimizer.
      history: One entry per validation: "round" (episodes before it), "skipped" (meta-updates
        skipped so far because of nonfinite gradients), and, averaged over families, "score" and
        "final_loss".
    """

    params: chex.ArrayTree
    score: float
    learning_rate: float
    history: list[dict[str, Any]]


def train(
    families: Sequence[Family],
    optimizer: TrainableOptimizer,
    config: BackpropagationConfig,
    *,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    show_progress: bool = True,
) -> BackpropagationResult:
    """Trains an optimizer on tasks.

    Args:
      families: Families of the tasks; episodes take them in turn.
      optimizer: The optimizer to train.
      config: Hyperparameters.
      seed: Random seed of the whole training.
      folder: Folder for checkpoints; an interrupted training continues from the latest one.
      show_progress: True to show progress.

    Returns:
      The best parameters of the optimizer, and the history.

    Raises:
      ValueError: `folder` holds another training.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from alphaopt_jax.tasks.papers import l2l
      >>> config = BackpropagationConfig(
      ...     horizon=10, unroll=5, episodes=2, validate_every=1, learning_rates=(1e-2,)
      ... )
      >>> sgd = TrainableOptimizer("SGD", optax.sgd, init=lambda key: jnp.float32(0.01))
      >>> result = train([l2l.quadratics()], sgd, config, show_progress=False)
      >>> len(result.history), bool(result.params > 0.01)
      (3, True)
    """

    def run(config: BackpropagationConfig, name: str) -> BackpropagationResult:
        place = None if folder is None else f"{os.fspath(folder)}/{name}"
        state, history = Trainer(optimizer, config).train(
            families,
            f"{optimizer.name}, {name}",
            seed=seed,
            folder=place,
            show_progress=show_progress,
        )
        return BackpropagationResult(
            jax.device_get(state.best_params),
            float(state.best_score),
            config.learning_rates[0],
            history,
        )

    selected = config.learning_rates[0]
    if len(config.learning_rates) > 1:
        episodes = max(int(_SEARCH_FRACTION * config.episodes), 1)
        short = dataclasses.replace(config, episodes=episodes, patience=episodes)
        scores = {}
        for rate in config.learning_rates:
            result = run(dataclasses.replace(short, learning_rates=(rate,)), f"rate {rate:g}")
            # The last score, not the best: a rate that diverges late would also diverge in the
            # full training.
            scores[rate] = result.history[-1]["score"]
        selected = min(scores, key=lambda rate: (scores[rate] != scores[rate], scores[rate]))
    return run(dataclasses.replace(config, learning_rates=(selected,)), "training")
