"""Figures of landscapes: the paths of optimizers, and the learning rates of an agent's policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import itertools
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize, PowerNorm
from matplotlib.figure import Figure
import numpy as np

from alphaopt_jax.plotting._style import INK, STAR, color_of, new_figure, styled, tidy_log_axis
from alphaopt_jax.tasks.landscapes import Landscape

_FLOOR = 1e-8  # Smallest loss above the minimum on a log scale, about the precision of float32.
_TERRAIN = LinearSegmentedColormap.from_list(
    "terrain", ["#5D7A8C", "#8FA7B3", "#BFCDD3", "#E2E8EA", "#F8F9F9"]
)  # From low (dark) to high (pale), so that the paths stand out almost everywhere.


class Trace(NamedTuple):
    """One run of an optimizer on a landscape, as NumPy or JAX arrays.

    Attributes:
      points: Points visited, beginning with the start, `float32[N, 2]`.
      losses: Loss at each point, `float32[N]`.
      rates: Learning rates of the agent, `float32[T, 2]`; None for other optimizers.
      rewards: Rewards of the agent, `float32[T]`; None for other optimizers.
    """

    points: np.ndarray
    losses: np.ndarray
    rates: np.ndarray | None = None
    rewards: np.ndarray | None = None


@styled
def landscape_figure(landscape: Landscape, traces: Mapping[str, Trace], *, title: str) -> Figure:
    """Plots paths over the landscape, and below them losses, learning rates and rewards.

    Args:
      landscape: Landscape that was minimized.
      traces: Runs by optimizer; a name may have several lines. The panels of learning rates and
        rewards show the first run that has them.
      title: Title of the figure.

    Returns:
      The figure.
    """
    figure = new_figure((9.0, 7.8), title)
    grid = figure.add_gridspec(2, 3, height_ratios=(2.1, 1.0))
    terrain = figure.add_subplot(grid[0, :2])
    draw_terrain(terrain, landscape)
    loss, rate, reward = (figure.add_subplot(grid[1, column]) for column in range(3))
    # The first trace is drawn last, on top of the others.
    for name, trace in reversed(list(traces.items())):
        width = 2.2 if name.startswith("AlphaOpt") else 1.5
        color = color_of(name, traces)
        _draw_path(terrain, trace.points, color, width).set_label(name)
        gap = np.maximum(np.asarray(trace.losses) - landscape.minimum, _FLOOR)
        loss.plot(np.arange(1, len(gap) + 1), gap, color=color, lw=width)
    with_rates = next((each for each in traces.values() if each.rates is not None), None)
    if with_rates is not None:
        for axis, (style, ink) in enumerate((("-", INK), ((0, (3, 1.2)), "#8C6D31"))):
            logs = np.log(np.asarray(with_rates.rates)[:, axis])
            _draw_noisy(rate, logs, ink, style, "xy"[axis], np.exp)
    with_rewards = next((each for each in traces.values() if each.rewards is not None), None)
    if with_rewards is not None:
        rewards, color = np.asarray(with_rewards.rewards), color_of(next(iter(traces)), traces)
        _draw_noisy(reward, rewards, color, "-", "", lambda values: values)
        _symmetric_log(reward, rewards)
    loss.set(yscale="log", title="Loss above the minimum")
    rate.set(yscale="log", title="Learning rates")
    reward.set(title="Reward: −ΔL")
    if rate.lines:
        rate.legend(loc="best", ncols=2, handlelength=1.8)
    for panel in (loss, rate):
        tidy_log_axis(panel.yaxis)
    for panel in (loss, rate, reward):
        panel.set(xscale="log", xlabel="step")
        if not panel.lines:
            panel.set_axis_off()
            panel.set_title("")
    handles, labels = terrain.get_legend_handles_labels()
    margin = figure.add_subplot(grid[0, 2])
    margin.set_axis_off()
    legend = margin.legend(
        handles[::-1],
        labels[::-1],
        loc="upper left",
        bbox_to_anchor=(-0.02, 1.02),
        fontsize=9,
        labelspacing=1.1,
        handlelength=1.6,
    )
    legend.set_in_layout(False)  # Otherwise its width would spread the columns.
    return figure


@styled
def overview_figure(
    landscapes: Sequence[Landscape],
    traces: Sequence[Mapping[str, Trace]],
    captions: Sequence[str],
    *,
    title: str,
    columns: int = 5,
) -> Figure:
    """Plots paths over several landscapes, a small panel each.

    Args:
      landscapes: Landscapes that were minimized.
      traces: For each landscape, runs by optimizer; all with the same names.
      captions: For each landscape, a line below its panel.
      title: Title of the figure.
      columns: Panels per row.

    Returns:
      The figure.
    """
    rows = -(-len(landscapes) // columns)
    figure = new_figure((2.35 * columns, 2.5 * rows + 0.6), title)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, landscape, runs, caption in zip(panels, landscapes, traces, captions, strict=False):
        draw_terrain(panel, landscape, markers=5.0)
        panel.set(xticks=(), yticks=())
        panel.set_title(landscape.title, weight="bold")
        panel.set_xlabel(caption, fontsize=8.5)
        panel.set_ylabel("")
        for name, trace in reversed(list(runs.items())):
            width = 1.9 if name.startswith("AlphaOpt") else 1.2
            _draw_path(panel, trace.points, color_of(name, runs), width).set_label(name)
    for panel in panels[len(landscapes) :]:
        panel.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    handles, labels = handles[2:], labels[2:]  # Without the start and the minimum.
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=len(labels))
    return figure


@styled
def policy_map_figure(landscape: Landscape, rates: np.ndarray, *, title: str) -> Figure:
    """Plots the learning rates of an agent's policy over a landscape.

    Args:
      landscape: Landscape to minimize.
      rates: Learning rates of the two parameters at the points of `landscape.grid(N)`,
        `float32[N, N, 2]`, with `rates[j, i]` at `(x[i], y[j])`.
      title: Title of the figure.

    Returns:
      The figure: a heat map of the log10 learning rate for each parameter.
    """
    figure = new_figure((9.6, 4.4), title)
    panels = figure.subplots(1, 2, sharey=True)
    logs = np.log10(np.maximum(rates, _FLOOR))
    low, high = np.quantile(logs, (0.005, 0.995))
    for axis, panel in enumerate(panels):
        image = panel.imshow(
            logs[:, :, axis],
            extent=landscape.bounds,
            origin="lower",
            aspect="auto",
            cmap="cividis",
            vmin=low,
            vmax=max(high, low + 1e-3),
        )
        draw_terrain(panel, landscape, filled=False)
        panel.set_title(f"rate of {'xy'[axis]}")
    panels[1].set_ylabel("")
    bar = figure.colorbar(image, ax=panels, fraction=0.05, pad=0.02)
    bar.set_label("log10 of the learning rate")
    bar.outline.set_visible(False)
    return figure


def draw_terrain(
    panel: Axes, landscape: Landscape, *, filled: bool = True, markers: float = 9.0
) -> None:
    """Draws contours of a landscape, a dot at the start and a star at each minimum.

    Args:
      panel: Axes to draw on; their limits become the landscape's bounds.
      landscape: Landscape to draw.
      filled: Whether to fill the contours, or to draw only faint lines.
      markers: Size of the markers in points.
    """
    x, y, values = landscape.grid()
    heights = np.maximum(values - landscape.minimum, _FLOOR)
    levels, norm = _levels(heights)
    if filled:
        panel.contourf(x, y, heights, levels, norm=norm, cmap=_TERRAIN, extend="min")
    lines: Any = {"colors": "white", "linewidths": 0.6, "alpha": 0.7 if filled else 0.45}
    panel.contour(x, y, heights, levels, **lines)
    ink: Any = {"mec": INK, "ls": "none", "zorder": 7}
    stars = np.array(landscape.minima).T
    panel.plot(*stars, "*", color=STAR, ms=1.5 * markers, mew=0.8, label="minimum", **ink)
    panel.plot(*landscape.start, "o", color="white", ms=0.7 * markers, label="start", **ink)
    x_low, x_high, y_low, y_high = landscape.bounds
    panel.set(xlim=(x_low, x_high), ylim=(y_low, y_high), xlabel="x", ylabel="y")
    panel.grid(visible=False)


def _levels(heights: np.ndarray) -> tuple[np.ndarray, Normalize]:
    """Returns contour levels: logarithmic if most values are small, otherwise quadratic."""
    low, middle, high = np.quantile(heights, (0.002, 0.5, 1.0))
    if middle > 0.2 * high:
        return high * np.linspace(0.0, 1.0, 15) ** 2, PowerNorm(0.5, 0.0, high)
    low = max(low, 1e-5 * high)
    return np.geomspace(low, high, 16), LogNorm(low, high)


def _draw_path(panel: Axes, points: np.ndarray, color: str, width: float) -> Any:
    # Points of a diverging run would overflow the renderer; they are outside the panel anyway.
    points = np.clip(np.asarray(points, float), -1e4, 1e4)
    (line,) = panel.plot(*points.T, color=color, lw=width, zorder=4, solid_joinstyle="round")
    end = points[np.isfinite(points).all(axis=1)][-1]
    panel.plot(*end, "o", color=color, mec="white", mew=0.8, ms=2.2 * width + 1.5, zorder=6)
    return line


def _draw_noisy(
    panel: Axes,
    values: np.ndarray,
    color: str,
    style: Any,
    label: str,
    transform: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Draws faint values, and bold means over bins of equal width on a log axis."""
    steps = np.arange(1, len(values) + 1)
    panel.plot(steps, transform(values), color=color, lw=0.6, alpha=0.25)
    edges = np.unique(np.geomspace(1, len(values) + 1, 60).astype(int))
    bins = list(itertools.pairwise(edges))
    means = np.array([values[low - 1 : high - 1].mean() for low, high in bins])
    middles = np.array([np.sqrt(low * (high - 1)) for low, high in bins])
    panel.plot(middles, transform(means), color=color, lw=1.6, ls=style, label=label)


def _symmetric_log(panel: Axes, values: np.ndarray) -> None:
    """Sets a symmetric log axis: rewards have both signs and span many orders of magnitude."""
    size = np.abs(values[np.isfinite(values)])
    largest = size.max() if size.size and size.max() > 0 else 1.0
    panel.set_yscale("symlog", linthresh=1e-5 * largest)
    panel.set_yticks([-largest, 0.0, largest], [f"−{largest:.2g}", "0", f"{largest:.2g}"])
    panel.minorticks_off()
