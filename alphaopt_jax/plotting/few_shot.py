"""Figures of few-shot learning: the drawings of an episode, and accuracies of optimizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
import numpy as np

from alphaopt_jax.plotting._style import COLORS, color_of, new_figure, styled


@styled
def characters_figure(drawings: np.ndarray, *, support: int, title: str) -> Figure:
    """Plots the drawings of an episode, a column for each character.

    Args:
      drawings: Drawings of N characters by P people, `float[N, P, H, W]`, ink 1 and paper 0.
      support: Number of people whose drawings are the support set; a line separates them from the
        queries.
      title: Title of the figure.

    Returns:
      The figure.

    Example:
      >>> import numpy as np
      >>> figure = characters_figure(np.zeros((5, 3, 28, 28)), support=2, title="An episode")
      >>> len(figure.axes)
      1
    """
    ways, people, height, width = drawings.shape
    framed = np.pad(drawings, ((0, 0), (0, 0), (2, 2), (2, 2)))
    sheet = framed.transpose(1, 2, 0, 3).reshape(people * (height + 4), ways * (width + 4))
    figure = new_figure((0.42 * ways + 1.0, 0.42 * people + 0.8), title)
    panel = figure.subplots()
    panel.imshow(1.0 - sheet, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    panel.axhline(support * (height + 4) - 0.5, color=COLORS["AlphaOpt"], lw=1.5)
    panel.set(xticks=[], xlabel="characters")
    panel.set_yticks(
        [(height + 4) * middle for middle in (support / 2, (support + people) / 2)],
        ["support", "queries"],
        rotation=90,
        va="center",
    )
    panel.tick_params(length=0)
    panel.grid(visible=False)
    return figure


@styled
def accuracies_figure(
    panels: Mapping[str, Mapping[str, np.ndarray]],
    steps: Mapping[str, Sequence[int]],
    *,
    title: str,
    emphasized: str,
    columns: int = 3,
) -> Figure:
    """Plots accuracies of several optimizers over the steps of an episode, a panel per meta-test.

    Args:
      panels: Accuracies by panel title and optimizer, `float[E, C]` in [0, 1] for E episodes and C
        measurements.
      steps: Numbers of updates before the measurements, by panel title.
      title: Title of the figure.
      emphasized: Prefix of the names of optimizers with thick lines.
      columns: Panels per row.

    Returns:
      The figure: lines are means, shaded areas their 95 % confidence intervals.

    Example:
      >>> import numpy as np
      >>> found = {"20-way": {"Adam": np.zeros((5, 3)), "AlphaOpt": np.ones((5, 3))}}
      >>> figure = accuracies_figure(
      ...     found, {"20-way": (0, 10, 20)}, title="Learning", emphasized="AlphaOpt"
      ... )
      >>> figure.axes[0].get_ylabel()
      'accuracy on queries, %'
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    # The first name that begins with "AlphaOpt" gets its color: emphasized names come first.
    names = dict.fromkeys(optimizer for each in panels.values() for optimizer in each)
    names = dict.fromkeys(sorted(names, key=lambda each: not each.startswith(emphasized)))
    figure = new_figure((4.2 * columns, 2.9 * rows + 0.3 + 0.22 * -(-len(names) // columns)), title)
    grid = figure.subplots(rows, columns, squeeze=False)
    lines = {}
    for panel, (name, by_optimizer) in zip(grid.ravel(), panels.items(), strict=False):
        for optimizer, shares in by_optimizer.items():
            accuracies = 100.0 * shares
            mean = accuracies.mean(axis=0)
            half = 1.96 * accuracies.std(axis=0, ddof=1) / np.sqrt(len(accuracies))
            color = color_of(optimizer, names)
            width = 2.2 if optimizer.startswith(emphasized) else 1.2
            (lines[optimizer],) = panel.plot(steps[name], mean, color=color, lw=width)
            panel.fill_between(steps[name], mean - half, mean + half, color=color, alpha=0.15, lw=0)
        panel.set(title=name, xlabel="step")
    for panel in grid.ravel()[len(panels) :]:
        panel.set_visible(False)
    for panel in grid[:, 0]:
        panel.set_ylabel("accuracy on queries, %")
    shown = [each for each in names if each in lines]
    figure.legend(
        [lines[each] for each in shown],
        shown,
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
    )
    return figure
