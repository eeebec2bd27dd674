"""The pictures of `benchmarks.online_learning`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
import numpy as np

from alphaopt_jax import evaluation
from alphaopt_jax.plotting import _style as style
from benchmarks.online_learning.report import USUAL
from benchmarks.online_learning.runs import Course

_LINES = {
    "frozen": ("learn=False", style.COLORS["Adam"]),
    "learning": ("learn=True", style.COLORS["AlphaOpt"]),
}


@style.styled
def multipliers_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Loss by multiplier of all rates: a thin line per task, and the geometric mean.

    Args:
      rows: The rows of `report.rate_rows`, of all tasks and agents.
    """
    agents = list(dict.fromkeys(row["agent"] for row in rows))
    figure = style.new_figure(
        (4.4 * len(agents) + 0.6, 3.9), "Loss relative to learning_rate=1 without learning"
    )
    panels = figure.subplots(1, len(agents), sharey=True, squeeze=False)[0]
    for panel, agent in zip(panels, agents, strict=True):
        mine = [row for row in rows if row["agent"] == agent]
        multipliers = sorted({row["multiplier"] for row in mine})
        for key, (label, color) in _LINES.items():
            ratios = np.array(
                [
                    [
                        np.mean(np.subtract(row[f"log_{key}"], row["log_usual"]))
                        for multiplier in multipliers
                        for row in mine
                        if (row["task"], row["multiplier"]) == (task, multiplier)
                    ]
                    for task in dict.fromkeys(row["task"] for row in mine)
                ]
            )
            panel.plot(multipliers, np.exp(ratios).T, color=color, lw=0.8, alpha=0.35)
            mean = np.exp(ratios.mean(axis=0))
            panel.plot(multipliers, mean, "o-", color=color, lw=2.2, label=label)
        panel.axhline(USUAL, color=style.FAINT, lw=1.0)
        panel.set(xscale="log", yscale="log", title=agent, xlabel="learning_rate")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


@style.styled
def course_figure(courses: Mapping[str, Course], title: str) -> Figure:
    """Losses, and what the agent learns, over the steps of single trainings.

    Args:
      courses: The trainings by their labels, at most three.
      title: Title of the figure.
    """
    figure = style.new_figure((9.4, 3.7), title)
    left, right = figure.subplots(1, 2)
    colors = (style.COLORS["Adam"], style.COLORS["AlphaOpt"], style.FAINT)
    for (label, course), color in zip(courses.items(), colors, strict=False):
        left.plot(evaluation.exponential_average(course.losses, 0.9), color=color, label=label)
        right.plot(course.factors, color=color, lw=2.0)
    left.set(yscale="log", xlabel="step", title="training loss, averaged over ten steps")
    right.set(yscale="log", xlabel="step", title="learning_rate times what the agent learns")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure
