"""Figures of training: losses of optimizers, and the progress of an agent that learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np

from alphaopt_jax.plotting._style import (
    COLORS,
    FAINT,
    band,
    color_of,
    new_figure,
    styled,
    tidy_log_axis,
)


@styled
def learning_figure(
    steps: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    limit: int,
    title: str,
    name: str = "AlphaOpt, from scratch",
    columns: int = 4,
) -> Figure:
    """Plots the steps that an agent needs in each episode, with and without learning.

    Args:
      steps: Steps needed with `learn=True` and with `learn=False` by landscape, both `float[S, E]`
        for S seeds and E episodes; `limit` if the target was not reached.
      limit: Steps per episode.
      title: Title of the figure.
      name: Name of the learning agent in the legend.
      columns: Panels per row.

    Returns:
      The figure: lines are means over the seeds, shaded areas are minimum to maximum.
    """
    columns = min(columns, len(steps))
    rows = -(-len(steps) // columns)
    figure = new_figure((max(2.7 * columns, 5.0), 2.1 * rows + 0.9), title)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for panel, (landscape, (on, off)) in zip(panels, steps.items(), strict=False):
        episodes = np.arange(1, on.shape[1] + 1)
        panel.axhline(limit, color=FAINT, lw=0.8, ls=":", label="not reached")
        band(panel, episodes, off, COLORS["Adam"], f"{name}, learn=False", ls="--")
        band(panel, episodes, on, COLORS["AlphaOpt"], name)
        least = min(on.min(), off.min())
        panel.set(yscale="log", title=landscape, ylim=(0.7 * min(least, 0.5 * limit), 1.3 * limit))
        tidy_log_axis(panel.yaxis)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    for panel in panels[len(steps) :]:
        panel.set_visible(False)
    for panel in panels[max(len(steps) - columns, 0) : len(steps)]:
        panel.set_xlabel("episode")
        panel.tick_params(axis="x", labelbottom=True)
    figure.supylabel("steps needed", fontsize=9.5)
    handles, labels = panels[0].get_legend_handles_labels()
    ncols = len(labels) if columns > 2 else 1
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=ncols)
    return figure


class TrainingLabels(NamedTuple):
    """Texts of a `training_figure`.

    Attributes:
      title: Title of the figure.
      x: Label of the x axis of the curves.
      curves: Title of the curves' panel.
      finals: Title of the final values' panel.
    """

    title: str
    x: str
    curves: str
    finals: str


@styled
def training_figure(
    curves: Mapping[str, np.ndarray],
    finals: Mapping[str, np.ndarray],
    x: np.ndarray,
    labels: TrainingLabels,
    *,
    window: int = 1,
    log: bool = True,
) -> Figure:
    """Plots curves of several optimizers, and beside them their final values.

    Args:
      curves: Curves by optimizer, `float[S, T]` for S seeds.
      finals: Final values by optimizer, `float[S]`, listed from top to bottom.
      x: Positions of the curves' values, `float[T]`.
      labels: Texts of the figure.
      window: Width of the centered moving average of the curves.
      log: Whether the curves' axis is logarithmic.

    Returns:
      The figure: lines and dots are means over the seeds, shaded areas and bars are minimum to
      maximum.
    """
    figure = new_figure((10.0, 0.3 * len(finals) + 2.6), labels.title)
    panel, dots = figure.subplots(1, 2, width_ratios=(1.6, 1.0))
    for name, values in curves.items():
        width = 2.2 if name.startswith("AlphaOpt") else 1.3
        smooth = np.stack([_smooth(np.asarray(each, float), window) for each in values])
        middle = x[(window - 1) // 2 :][: smooth.shape[1]]
        band(panel, middle, smooth, color_of(name, finals), name, lw=width)
    panel.set(xlabel=labels.x, title=labels.curves, yscale="log" if log else "linear")
    for row, (name, values) in enumerate(finals.items()):
        values = np.asarray(values, float)
        color, mean = color_of(name, finals), values.mean()
        dots.plot([values.min(), values.max()], [row, row], color=color, lw=2.2, alpha=0.5)
        dots.plot(values, np.full(len(values), row), "|", color=color, ms=7)
        dots.plot(mean, row, "o", color=color, ms=7.5)
        note = f"{mean:.4g}"
        dots.annotate(note, (mean, row), (0, 6), textcoords="offset points", ha="center", size=7.5)
    dots.set(yticks=range(len(finals)), yticklabels=list(finals), title=labels.finals)
    dots.set_ylim(len(finals) - 0.4, -0.7)
    dots.margins(x=0.12)  # For the numbers above the outermost dots.
    dots.tick_params(axis="y", length=0)
    dots.grid(axis="y", visible=False)
    for tick, name in zip(dots.get_yticklabels(), finals, strict=True):
        tick.set_color(color_of(name, finals))  # The tick labels are the curves' legend as well.
        tick.set_weight("bold" if name.startswith("AlphaOpt") else "normal")
    return figure


@styled
def panels_figure(
    problems: Mapping[str, Mapping[str, np.ndarray]],
    *,
    title: str,
    emphasized: str,
    trained: int | None = None,
    every: int = 1,
    columns: int = 3,
) -> Figure:
    """Plots losses of several optimizers on a logarithmic axis, a panel per problem.

    Args:
      problems: Losses by panel title and optimizer, `float[N, T]` for N runs.
      title: Title of the figure.
      emphasized: Name of the optimizer with a thick line.
      trained: Steps per episode in the training of learned optimizers, marked by a dotted line.
      every: Steps between two losses.
      columns: Panels per row.

    Returns:
      The figure: lines are means, shaded areas their 95 % confidence intervals.
    """
    columns = min(columns, len(problems))
    rows = -(-len(problems) // columns)
    figure = new_figure((3.7 * columns, 2.7 * rows + 0.6), title)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    names = dict.fromkeys(name for losses in problems.values() for name in losses)
    for panel, (problem, by_name) in zip(panels, problems.items(), strict=False):
        if trained is not None:
            panel.axvline(trained, color=FAINT, lw=0.8, ls=":")
        for name, losses in by_name.items():
            mean, steps = losses.mean(axis=0), every * np.arange(losses.shape[1])
            color = color_of(name, names)
            width = 2.2 if name == emphasized else 1.3
            panel.plot(steps, mean, color=color, lw=width, label=name)
            if len(losses) > 1:
                half = 1.96 * losses.std(axis=0, ddof=1) / np.sqrt(len(losses))
                low = np.maximum(mean - half, 0.05 * mean)
                panel.fill_between(steps, low, mean + half, color=color, alpha=0.15, lw=0)
        panel.set(title=problem, yscale="log", xlabel="step")
        tidy_log_axis(panel.yaxis)
    for panel in panels[len(problems) :]:
        panel.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
    return figure


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    return np.convolve(values, np.full(window, 1.0 / window), mode="valid")
