"""The pictures of `benchmarks.li_malik`: the papers' curves, measured here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
import numpy as np

from alphaopt_jax import plotting
from alphaopt_jax.plotting import _style as style
from benchmarks.li_malik import paper_2016, paper_2017


def write(
    curves: Sequence[paper_2016.Curves],
    transfers: Sequence[paper_2017.Curve],
    folder: Path,
) -> None:
    """Writes `li_malik_2016.png` and `li_malik_2017.png` into `folder`."""
    style.save_png(margins_figure(curves), folder / "li_malik_2016.png")
    style.save_png(transfers_figure(transfers), folder / "li_malik_2017.png")


@style.styled
def margins_figure(curves: Sequence[paper_2016.Curves]) -> Figure:
    """Mean objectives above, mean margins over each rival below; one column per problem."""
    figure = style.new_figure((3.7 * len(curves), 5.4), "Learning to optimize, 2016")
    panels = figure.subplots(2, len(curves), squeeze=False, sharex=True)
    for column, each in enumerate(curves):
        names = dict.fromkeys(each.objectives)
        above, below = panels[:, column]
        for name, objectives in each.objectives.items():
            color = _color(name, names)
            width = 2.2 if name == paper_2016.LEARNED else 1.3
            above.plot(objectives.mean(axis=0), color=color, lw=width, label=name)
            if name == paper_2016.LEARNED:
                continue
            margin = each.margin(name)
            mean = margin.mean(axis=0)
            half = 1.96 * margin.std(axis=0, ddof=1) / np.sqrt(len(margin))
            steps = np.arange(len(mean))
            below.plot(steps, mean, color=color, lw=1.3)
            below.fill_between(steps, mean - half, mean + half, color=color, alpha=0.15, lw=0)
        below.axhline(0.0, color=style.INK, lw=0.8)
        learned = each.objectives[paper_2016.LEARNED].mean(axis=0)
        above.set(
            title=each.problem,
            ylim=(0.9 * learned.min(), 1.1 * learned[0]),
            yscale="log",
        )
        style.tidy_log_axis(above.yaxis)
        span = np.percentile(np.abs(each.margin("momentum").mean(axis=0)[1:]), 98)
        below.set(xlabel="step", ylim=(-2.5 * span, 2.5 * span))
        for panel in (above, below):
            panel.axvline(paper_2016.HORIZON, color=style.FAINT, lw=0.8, ls=":")
    panels[0, 0].set_ylabel("mean objective")
    panels[1, 0].set_ylabel("margin")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def transfers_figure(curves: Sequence[paper_2017.Curve]) -> Figure:
    """Mean objectives, one panel per net and data set."""
    by_problem: dict[str, dict[str, np.ndarray]] = {}
    for curve in curves:
        title = f"{curve.data}, {curve.setting}"
        by_problem.setdefault(title, {})[curve.optimizer] = curve.objectives
    return plotting.panels_figure(
        by_problem,
        title="Learning to optimize neural nets, 2017",
        emphasized=paper_2017.LEARNED,
        trained=paper_2017.HORIZON,
        every=paper_2017.EVERY,
    )


def _color(name: str, names: dict[str, None]) -> str:
    if name == paper_2016.LEARNED:
        return style.COLORS["AlphaOpt"]
    return style.color_of(name, {each: None for each in names if each != paper_2016.LEARNED})
