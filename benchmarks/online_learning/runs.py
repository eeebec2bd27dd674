"""Training runs of `benchmarks.online_learning`."""

from __future__ import annotations

from collections.abc import Sequence
import warnings

import numpy as np
import optax

import alphaopt_jax as alphaopt
from alphaopt_jax import evaluation
from benchmarks.online_learning.tasks import Case
from benchmarks.zero_tuning import statistics

HORIZONS = (200, 2000)


def train(case: Case, learn: bool, seeds: Sequence[int]) -> np.ndarray:
    """Trains AlphaOpt, no horizon, on one task.

    Args:
      case: The task.
      learn: AlphaOpt's argument `learn`.
      seeds: Seeds of the exploration on landscapes, which have a fixed start; otherwise seeds of
        the initial parameters and batches.

    Returns:
      `float[H, S]`, bounded log losses after each of `HORIZONS`, by seed.
    """
    fixed_start = case.group == "landscapes"

    def optimizer_fn(seed: int) -> optax.GradientTransformation:
        with warnings.catch_warnings():  # Rates are too small on purpose.
            warnings.filterwarnings("ignore", "`learning_rate` is", UserWarning)
            return alphaopt.alphaopt(case.learning_rate, learn=learn, seed=seed)

    outcome = evaluation.train_rates(
        case.task,
        optimizer_fn,
        tuple(seeds) if fixed_start else (0,),
        HORIZONS[-1],
        (0,) if fixed_start else seeds,
        evaluation.TrainingOptions(
            checkpoints=HORIZONS[:-1],
            num_batches=1 if fixed_start else 32,
            vectorize=not learn,
        ),
    )
    losses = outcome.train_losses.reshape(len(seeds), len(HORIZONS))
    initial_losses = np.broadcast_to(outcome.initial_losses, len(seeds))
    return np.array(
        [
            [statistics.log_loss(*pair) for pair in zip(at_horizon, initial_losses, strict=True)]
            for at_horizon in losses.T
        ]
    )
