"""Figures of an agent: its meta-training, its learning rates and its policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
import numpy as np

from alphaopt_jax.plotting._style import FAINT, band, color_of, new_figure, styled


@styled
def meta_training_figure(
    scores: Mapping[str, np.ndarray],
    *,
    x: Mapping[str, np.ndarray],
    x_label: str = "millions of training steps on all tasks together",
    title: str = "Meta-training",
) -> Figure:
    """Plots validation scores against the amount of meta-training.

    Args:
      scores: Scores by method, `float[S, V]` for S seeds and V validations; lower is better.
      x: Positions of the validations by method, `float[V]`.
      x_label: Label of the x axis.
      title: Title of the figure.

    Returns:
      The figure: lines are means over the seeds, shaded areas are minimum to maximum.
    """
    figure = new_figure((6.6, 3.6), title)
    panel = figure.subplots()
    for name, values in scores.items():
        band(panel, x[name], np.asarray(values, float), color_of(name, scores), name, lw=2.0)
    panel.set(xlabel=x_label, title="log of final over initial loss, tasks not trained on")
    panel.legend()
    return figure


@styled
def rates_figure(
    rates: Mapping[str, np.ndarray],
    losses: np.ndarray,
    *,
    title: str = "Learning rates that the agent chooses",
) -> Figure:
    """Plots the learning rates of every layer during training, and the loss.

    Args:
      rates: Mean learning rate of the layer's parameters by layer, `float[T]`.
      losses: Training losses, `float[T]`.
      title: Title of the figure.

    Returns:
      The figure, with logarithmic y axes.
    """
    figure = new_figure((9.4, 3.6), title)
    left, right = figure.subplots(1, 2)
    for name, values in rates.items():
        left.plot(np.arange(1, len(values) + 1), values, color=color_of(name, rates), label=name)
    left.set(xlabel="step", title="mean learning rate", yscale="log")
    left.legend()
    right.plot(np.arange(1, len(losses) + 1), losses, color=FAINT, lw=1.0)
    right.set(xlabel="step", title="training loss", yscale="log")
    return figure


@styled
def policy_slices_figure(
    slices: Sequence[tuple[str, str, np.ndarray]],
    *,
    extent: float,
    title: str = "How two observations at a time change the rate",
) -> Figure:
    """Plots the agent's log learning rate over pairs of observations; all others are zero.

    Args:
      slices: For each map, the name of the observation on the x axis, the name of that on the y
        axis, and the log rates, `float[K, K]`, rows from bottom to top.
      extent: Range of both observations: from `-extent` to `extent`.
      title: Title of the figure.

    Returns:
      The figure, with one color scale for all maps; 0 is the default rate.
    """
    figure = new_figure((3.3 * len(slices) + 0.8, 3.6), title)
    panels = figure.subplots(1, len(slices), squeeze=False)[0]
    bound = max(float(np.abs(values).max()) for _, _, values in slices) or 1.0
    for panel, (across, upwards, values) in zip(panels, slices, strict=True):
        image = panel.imshow(
            values,
            origin="lower",
            extent=(-extent, extent, -extent, extent),
            cmap="RdBu_r",
            vmin=-bound,
            vmax=bound,
            aspect="auto",
        )
        panel.set(xlabel=across, ylabel=upwards)
        panel.grid(visible=False)
    figure.colorbar(image, ax=panels.tolist(), label="log of the rate, relative to the default")
    return figure
