"""Statistics of losses for `benchmarks.zero_tuning`.

Losses are compared by their logarithms. Each loss is clipped to between `FLOOR` and `CEILING` times
the loss before training, so that the logarithm exists; a loss that is not finite counts as the
latter. Arrays of logarithms have the axes tasks, horizons and seeds: `[N, H, S]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math

import numpy as np

FLOOR, CEILING = 1e-9, 1e3


def log_loss(loss: float | None, initial: float) -> float:
    """Logarithm of a final loss, bounded relative to the loss before training.

    Args:
      loss: The final loss; None if it is not finite.
      initial: The loss before training, positive.

    Example:
      >>> log_loss(1.0, 2.0), round(log_loss(0.0, 1.0), 2), round(log_loss(None, 1.0), 2)
      (0.0, -20.72, 6.91)
    """
    if loss is None or not math.isfinite(loss):
        loss = math.inf
    return math.log(min(max(loss, FLOOR * initial), CEILING * initial))


def diverged(loss: float | None, initial: float) -> bool:
    """True if the final loss is not finite or above the initial one."""
    return loss is None or not loss <= initial


def marks(horizon: int, count: int) -> np.ndarray:
    """About `count` numbers of steps up to `horizon`, evenly spaced on a logarithmic axis.

    Example:
      >>> marks(100, 5).tolist()
      [1, 3, 10, 32, 100]
    """
    return np.unique(np.geomspace(1, horizon, count).round().astype(int))


def envelope(smoothed: np.ndarray) -> np.ndarray:
    """Least smoothed loss over all learning rates, up to each step.

    Args:
      smoothed: `float[S, R, T]`, smoothed training curves.

    Returns:
      `float[T]`: mean over seeds, minimum over rates, running minimum over steps.
    """
    finite = np.where(np.isfinite(smoothed), smoothed, np.inf)
    return np.minimum.accumulate(finite.mean(axis=0).min(axis=0))


def steps_to_reach(
    loss: float, envelopes: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[int, bool]:
    """Least number of steps after which an envelope is at `loss` or below.

    Args:
      loss: A smoothed training loss.
      envelopes: Pairs of steps and values, `[M]` each.

    Returns:
      The number of steps and True; or the last step of all envelopes and False if none reaches
      the loss.
    """
    reached = [
        int(steps[np.argmax(values <= loss)])
        for steps, values in envelopes
        if np.any(values <= loss)
    ]
    if reached:
        return min(reached), True
    return max(int(steps[-1]) for steps, _ in envelopes), False


def win_fraction(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Share of task-horizon pairs with a lower mean over the seeds; both are `float[N, H, S]`."""
    return float(np.mean(ours.mean(axis=-1) < theirs.mean(axis=-1)))


def win_interval(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of `win_fraction`, over tasks and seeds."""
    ours, theirs = _resampled(ours, theirs)
    return _interval((ours.mean(axis=-1) < theirs.mean(axis=-1)).mean(axis=(1, 2)))


def loss_ratio(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Geometric mean of the ratio of two losses, given their logarithms, `float[N, H, S]`."""
    return float(np.exp(np.mean(ours - theirs)))


def ratio_interval(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of `loss_ratio`, over tasks and seeds."""
    ours, theirs = _resampled(ours, theirs)
    return _interval(np.exp((ours - theirs).mean(axis=(1, 2, 3))))


def performance_profile(
    losses: Mapping[str, np.ndarray], factors: np.ndarray
) -> dict[str, np.ndarray]:
    """Share of task-horizon pairs on which each optimizer is within a factor of the best one.

    Args:
      losses: Logarithms of the losses of each optimizer, `float[N, H, S]`.
      factors: The factors, `float[F]`, at least 1.

    Returns:
      The shares of each optimizer, `float[F]`.
    """
    means = {name: values.mean(axis=-1) for name, values in losses.items()}
    best = np.min(list(means.values()), axis=0)
    return {
        name: np.array([np.mean(each - best <= np.log(factor) + 1e-12) for factor in factors])
        for name, each in means.items()
    }


def _resampled(
    ours: np.ndarray, theirs: np.ndarray, samples: int = 2000
) -> tuple[np.ndarray, np.ndarray]:
    """Resamples both over tasks, and over the seeds of each task: `float[samples, N, H, S]`."""
    generator = np.random.default_rng(0)
    count, _, seeds = ours.shape
    tasks = generator.integers(count, size=(samples, count))
    drawn = generator.integers(seeds, size=(samples, count, 1, seeds))
    first, second = (np.take_along_axis(each[tasks], drawn, axis=-1) for each in (ours, theirs))
    return first, second


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
