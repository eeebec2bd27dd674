"""Pictures of few-shot learning: what there is to learn, and how far optimizers come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
import numpy as np

from alphaopt_jax.plotting._style import COLORS, color_of, new_figure, styled


@styled
def characters_figure(drawings: np.ndarray, *, support: int, title: str) -> Figure:
    """The drawings of an episode: a column for each character.

    Args:
      drawings: `float[N, P, H, W]` of N characters by P people, ink 1 and paper 0.
      support: The first so many people's drawings are trained on; a line parts them from the
        queries.
      title: What the picture shows.

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
        ["trained on", "asked for"],
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
    """A panel for each meta-test: accuracies of several optimizers along the steps of an episode.

    Args:
      panels: From a panel's title to accuracies by optimizer, `float[E, C]` of E episodes, shares.
      steps: From a panel's title to the updates before each of C looks.
      title: What the picture shows.
      emphasized: Lines of names that begin so are thick.
      columns: Panels in a row.

    Returns:
      The figure: means as lines, shades for their 95 % intervals.

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
    # Whose colour is asked for first has the first claim to AlphaOpt's.
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
