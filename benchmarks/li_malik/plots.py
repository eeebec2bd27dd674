"""The pictures of `benchmarks.li_malik`: the paper's curves, measured here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
import numpy as np

from alphaopt_jax import plotting
from alphaopt_jax.plotting import _style as style
from benchmarks.li_malik import paper_2016 as full_vector
from benchmarks.li_malik import paper_2017 as coordinatewise


def write(
    curves: Sequence[full_vector.Curves],
    transfers: Sequence[coordinatewise.Curve],
    folder: Path,
) -> None:
    """Writes `li_malik_2016.png` and `li_malik_2017.png` into `folder`."""
    style.save_png(margins_figure(curves), folder / "li_malik_2016.png")
    style.save_png(transfers_figure(transfers), folder / "li_malik_2017.png")


@style.styled
def margins_figure(curves: Sequence[full_vector.Curves]) -> Figure:
    """Above, mean objectives; below, the mean margin of victory over each rival."""
    figure = style.new_figure((3.7 * len(curves), 5.4), "Learning to optimize, 2016")
    panels = figure.subplots(2, len(curves), squeeze=False, sharex=True)
    for column, each in enumerate(curves):
        names = dict.fromkeys(each.objectives)
        above, below = panels[:, column]
        for name, objectives in each.objectives.items():
            color = _color(name, names)
            width = 2.2 if name == full_vector.LEARNED else 1.3
            above.plot(objectives.mean(axis=0), color=color, lw=width, label=name)
            if name == full_vector.LEARNED:
                continue
            margin = each.margin(name)
            mean = margin.mean(axis=0)
            half = 1.96 * margin.std(axis=0, ddof=1) / np.sqrt(len(margin))
            steps = np.arange(len(mean))
            below.plot(steps, mean, color=color, lw=1.3)
            below.fill_between(steps, mean - half, mean + half, color=color, alpha=0.15, lw=0)
        below.axhline(0.0, color=style.INK, lw=0.8)
        learned = each.objectives[full_vector.LEARNED].mean(axis=0)
        above.set(title=each.problem, ylim=(0.9 * learned.min(), 1.1 * learned[0]), yscale="log")
        style.tidy_log_axis(above.yaxis)
        span = np.percentile(np.abs(each.margin("momentum").mean(axis=0)[1:]), 98)
        below.set(xlabel="step", ylim=(-2.5 * span, 2.5 * span))
        for panel in (above, below):
            panel.axvline(full_vector.HORIZON, color=style.FAINT, lw=0.8, ls=":")
    panels[0, 0].set_ylabel("mean objective")
    panels[1, 0].set_ylabel("margin of victory")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def transfers_figure(curves: Sequence[coordinatewise.Curve]) -> Figure:
    """A panel for each net and data set: mean objectives."""
    by_problem: dict[str, dict[str, np.ndarray]] = {}
    for curve in curves:
        title = f"{curve.data}, {curve.setting}"
        by_problem.setdefault(title, {})[curve.optimizer] = curve.objectives
    return plotting.panels_figure(
        by_problem,
        title="Learning to optimize neural nets, 2017",
        emphasized=coordinatewise.LEARNED,
        trained=coordinatewise.HORIZON,
        every=coordinatewise.EVERY,
    )


def _color(name: str, names: dict[str, None]) -> str:
    if name == full_vector.LEARNED:
        return style.COLORS["AlphaOpt"]
    return style.color_of(name, {each: None for each in names if each != full_vector.LEARNED})
