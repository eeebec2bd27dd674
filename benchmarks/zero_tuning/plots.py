"""Pictures of `benchmarks.zero_tuning`: training curves, a performance profile, loss ratios."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
import numpy as np

from alphaopt_jax.plotting import _style as style
from alphaopt_jax.tasks.suite import catalog
from benchmarks.zero_tuning import optimizers, runs, statistics
from benchmarks.zero_tuning.comparison import ADAM_DEFAULT, ADAM_TUNED, COSINE_TUNED, Comparison
from benchmarks.zero_tuning.optimizers import ALPHAOPT

_FACTORS = np.geomspace(1.0, 30.0, 120)
_DASHES = ("-", "--", "-.", ":")


def write(table: Comparison, folder: Path) -> None:
    """Writes `curves.png`, `profile.png` and, if tuned Adam was run, `ratios.png` into `folder`.

    Large networks alone, which have no rows of tasks, give no pictures.
    """
    if not table.tasks:
        return
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "curves": curves_figure(table),
        "profile": profile_figure({entry: table.logs(entry) for entry in table.entries}),
    }
    if ADAM_TUNED in table.entries and len(table.entries) > 1:
        figures["ratios"] = ratios_figure(table)
    for name, figure in figures.items():
        style.save_png(figure, folder / f"{name}.png")


def _main_entries(table: Comparison) -> list[str]:
    """Entries of the curves and the ratios."""
    names = (
        ALPHAOPT,
        ADAM_TUNED,
        COSINE_TUNED,
        ADAM_DEFAULT,
        _best_free_overall(table),
    )
    return [name for name in names if name in table.entries]


def _best_free_overall(table: Comparison) -> str:
    free = [each.name for each in optimizers.TUNING_FREE]
    names = [each for each in table.entries if each in free]
    return min(names, key=lambda name: table.logs(name).mean()) if names else ""


@style.styled
def curves_figure(table: Comparison, *, columns: int = 5) -> Figure:
    """Smoothed training curves of the main entries on every task, at the longest common horizon.

    Lines are geometric means over the seeds; shades are ranges.
    """
    horizon = max(table.settings.horizons)
    steps = statistics.marks(horizon, runs.CURVE_POINTS)
    names = _main_entries(table)
    columns = min(columns, len(table.tasks))
    rows = -(-len(table.tasks) // columns)
    title = f"Training loss over {horizon:,} steps"
    figure = style.new_figure((max(2.5 * columns, 6.0), 2.0 * rows + 1.0), title)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, task in zip(panels, table.tasks, strict=False):
        lowest, highest = np.inf, 0.0
        for name in names:
            result = table.results[name, task, horizon]
            if result.curves is None:
                continue
            values = np.array(
                [[np.nan if each is None else each for each in curve] for curve in result.curves]
            )
            logs = np.log(np.clip(values, statistics.FLOOR, None))
            color, emphasis = style.color_of(name, dict.fromkeys(names)), name == ALPHAOPT
            middle = np.exp(logs.mean(axis=0))
            low, high = np.exp(logs.min(axis=0)), np.exp(logs.max(axis=0))
            panel.fill_between(steps, low, high, color=color, alpha=0.15, lw=0)
            panel.plot(
                steps,
                middle,
                color=color,
                lw=2.2 if emphasis else 1.3,
                label=name,
                zorder=3 if emphasis else 2,
            )
            if np.isfinite(middle).any():
                lowest, highest = min(lowest, np.nanmin(low)), max(highest, middle[0])
        panel.set(xscale="log", yscale="log", title=catalog.SUITE[task].title)
        panel.title.set_fontsize(8.5)
        if np.isfinite(lowest):
            panel.set_ylim(0.8 * lowest, 1.5 * highest)
        style.tidy_log_axis(panel.yaxis)
        panel.tick_params(labelsize=7.5)
    for panel in panels[len(table.tasks) :]:
        panel.set_visible(False)
    for panel in panels[max(len(table.tasks) - columns, 0) : len(table.tasks)]:
        panel.set_xlabel("step", fontsize=8.5)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


@style.styled
def profile_figure(logs: Mapping[str, np.ndarray]) -> Figure:
    """Share of task-horizon pairs on which each optimizer is within a factor of the best one.

    Args:
      logs: Logarithms of the losses of each optimizer, `float[N, H, S]`.
    """
    shares = statistics.performance_profile(logs, _FACTORS)
    figure = style.new_figure((8.5, 4.8), "Performance profile")
    panel = figure.subplots()
    order = sorted(shares, key=lambda name: -shares[name].mean())
    for place, name in enumerate(order):
        panel.plot(
            _FACTORS,
            shares[name],
            color=style.color_of(name, logs),
            lw=2.6 if name.startswith("AlphaOpt") else 1.4,
            ls=_DASHES[place % len(_DASHES)] if not name.startswith("AlphaOpt") else "-",
            label=name,
        )
    panel.set(
        xscale="log",
        xlim=(1.0, _FACTORS[-1]),
        ylim=(0.0, 1.02),
        xlabel="final training loss, as a multiple of the best optimizer's",
        ylabel="share of task-horizon pairs",
    )
    panel.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    style.tidy_log_axis(panel.xaxis)
    figure.legend(loc="outside right center", fontsize=8)
    return figure


@style.styled
def ratios_figure(table: Comparison) -> Figure:
    """Final training losses as multiples of tuned Adam's, a row for each task."""
    names = [name for name in _main_entries(table) if name != ADAM_TUNED]
    reference = table.logs(ADAM_TUNED).mean(axis=-1)
    horizons = table.settings.horizons
    title = "Final training loss, as a multiple of tuned Adam's"
    height = 0.27 * len(table.tasks) + 1.6
    figure = style.new_figure((4.2 * len(horizons) + 1.6, height), title)
    panels = figure.subplots(1, len(horizons), sharey=True, squeeze=False)[0]
    for index, (panel, horizon) in enumerate(zip(panels, horizons, strict=True)):
        panel.axvline(1.0, color=style.COLORS["Adam"], lw=1.2)
        for name in names[::-1]:
            ratios = np.exp(table.logs(name)[:, index] - reference[:, index, None])
            _dots(panel, ratios, name, style.color_of(name, dict.fromkeys(_main_entries(table))))
        panel.set(xscale="log", title=f"{horizon:,} steps")
        panel.set_yticks(
            range(len(table.tasks)), [catalog.SUITE[task].title for task in table.tasks]
        )
        panel.set_ylim(len(table.tasks) - 0.4, -0.6)
        panel.tick_params(axis="y", length=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=len(labels))
    return figure


def _dots(panel: Axes, ratios: np.ndarray, name: str, color: str) -> None:
    """Draws the geometric mean over the seeds as a dot and their range as a bar, in every row."""
    rows = np.arange(len(ratios))
    emphasis = name == ALPHAOPT
    panel.hlines(rows, ratios.min(axis=1), ratios.max(axis=1), color=color, lw=1.6, alpha=0.45)
    panel.plot(
        np.exp(np.log(ratios).mean(axis=1)),
        rows,
        "o",
        color=color,
        ms=7 if emphasis else 4.5,
        label=name,
    )
