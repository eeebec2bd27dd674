"""The pictures of `benchmarks.meta_learners`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
import numpy as np

from alphaopt_jax import plotting


def write(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Writes the learning curves, by steps and by seconds, into `folder`."""
    by_steps = learning_figure(rows, "env_steps", "millions of environment steps", scale=1e6)
    by_time = learning_figure(rows, "seconds", "seconds")
    plotting.save_png(by_steps, folder / "meta_learners_env_steps.png")
    plotting.save_png(by_time, folder / "meta_learners_seconds.png")


def learning_figure(
    rows: Sequence[Mapping[str, Any]], column: str, x_label: str, scale: float = 1.0
) -> Figure:
    """Validation scores of each method during training.

    Args:
      rows: Rows of the results file, with their curves.
      column: The curves' column on the horizontal axis.
      x_label: Label of that axis.
      scale: Units of the column in one unit of the axis.
    """

    def curves(row: Mapping[str, Any], name: str) -> np.ndarray:
        return np.array([curve[name] for curve in row["curves"]])

    return plotting.meta_training_figure(
        {row["method"]: curves(row, "scores") for row in rows},
        x={row["method"]: np.mean(curves(row, column), axis=0) / scale for row in rows},
        x_label=x_label,
        title="Ways to train an agent",
    )
