"""The picture of `benchmarks.l2l`: the paper's curves, measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from matplotlib.figure import Figure
import numpy as np

from alphaopt_jax.plotting import style


class Curve(Protocol):
    """What is drawn: one optimizer on one problem."""

    @property
    def problem(self) -> str:
        """The problem's name."""

    @property
    def optimizer(self) -> str:
        """The optimizer's name."""

    @property
    def losses(self) -> np.ndarray:
        """`float[N, T + 1]`."""


def write(curves: Sequence[Curve], trained: Mapping[str, int], folder: Path) -> None:
    """Writes `l2l.png` into `folder`."""
    style.save_png(curves_figure(curves, trained), folder / "l2l.png")


@style.styled
def curves_figure(curves: Sequence[Curve], trained: Mapping[str, int]) -> Figure:
    """A panel for each problem: mean losses, and shades for the 95 % intervals of the means.

    Args:
      curves: What to draw.
      trained: From a problem's name to the number of steps that the LSTM was trained for.
    """
    names = list(dict.fromkeys(curve.problem for curve in curves))
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = style.new_figure((3.6 * columns, 2.9 * rows + 0.5), "Learning to learn")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    optimizers = dict.fromkeys(curve.optimizer for curve in curves)
    for panel, name in zip(panels, names, strict=False):
        panel.axvline(trained[name], color=style.FAINT, lw=0.8, ls=":")
        for curve in curves:
            if curve.problem != name:
                continue
            mean = curve.losses.mean(axis=0)
            half = 1.96 * curve.losses.std(axis=0, ddof=1) / np.sqrt(len(curve.losses))
            steps = np.arange(len(mean))
            color = style.color_of(curve.optimizer, optimizers)
            width = 2.2 if curve.optimizer == "LSTM" else 1.3
            panel.plot(steps, mean, color=color, lw=width, label=curve.optimizer)
            low = np.maximum(mean - half, 0.05 * mean)
            panel.fill_between(steps, low, mean + half, color=color, alpha=0.15, lw=0)
        panel.set(title=name, yscale="log", xlabel="step")
        style.tidy_log_axis(panel.yaxis)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure
