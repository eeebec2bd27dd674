"""The picture of `benchmarks.mnist`: training curves and final losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alphaopt_jax import plotting
from benchmarks.mnist import optimizers, report
from benchmarks.mnist.runs import STEPS_PER_REPORT, Run

_SMOOTHING = 3  # Points of the stored curves that the picture averages.


def pictured(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the optimizers in the picture, as far as they were run."""
    present = {row["optimizer"] for row in rows}
    names = [
        optimizers.ALPHAOPT.name,
        optimizers.NO_HORIZON.name,
        optimizers.FROM_SCRATCH.name,
        optimizers.NOT_LEARNING.name,
        optimizers.ADAM.name,
    ]
    for spec_fn, grid, tuned in (
        (optimizers.adam, optimizers.ADAM_GRID, report.tuned_adam),
        (optimizers.cosine_adam, optimizers.ADAM_GRID, report.tuned_cosine_adam),
        (optimizers.cosine_soap, optimizers.SOAP_GRID, report.tuned_cosine_soap),
    ):
        if any(spec_fn(rate).name in present for rate in grid):
            names.append(tuned(rows).name)
    names += [spec.name for spec in optimizers.TUNING_FREE]
    return [name for name in dict.fromkeys(names) if name in present]


def write(
    runs: Mapping[str, Sequence[Run]], rows: Sequence[Mapping[str, Any]], path: Path, data: str
) -> None:
    """Draws training curves and final losses.

    Args:
      runs: All runs, by the optimizer's name.
      rows: Rows of `report.summarize`.
      path: The file to write.
      data: Name of the images.
    """
    chosen = {name: runs[name] for name in pictured(rows)}
    shortest = min(len(run.losses) for each in chosen.values() for run in each)
    figure = plotting.training_figure(
        curves={
            name: np.array([run.losses[:shortest] for run in each]) for name, each in chosen.items()
        },
        finals={name: np.array([run.train_loss for run in each]) for name, each in chosen.items()},
        x=(np.arange(shortest) + 1) * STEPS_PER_REPORT,
        labels=plotting.TrainingLabels(
            title=f"{data}: Flax's CNN, only the optimizer replaced",
            x="step",
            curves="minibatch loss",
            finals="final training loss",
        ),
        window=_SMOOTHING if shortest > 2 * _SMOOTHING else 1,  # A short curve would be one dot.
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    plotting.save_png(figure, path)
