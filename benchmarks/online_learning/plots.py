"""The picture of `benchmarks.online_learning`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
import numpy as np

from alphaopt_jax.plotting import _style as style
from benchmarks.common.modes import LEARN_NO_HORIZON, NO_HORIZON
from benchmarks.online_learning.runs import HORIZONS
from benchmarks.online_learning.tasks import GROUPS

_GROUP_COLORS = (style.COLORS["Adam"], style.COLORS["AlphaOpt"])


@style.styled
def ratios_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Loss ratios of `learn=True` to frozen by task: dots, with bars over the range of seeds."""
    cases = list(dict.fromkeys((row["group"], row["task"]) for row in rows))
    size = (4.2 * len(HORIZONS) + 1.6, 0.27 * len(rows) / len(HORIZONS) + 1.6)
    figure = style.new_figure(size, f"Loss of {LEARN_NO_HORIZON}, relative to {NO_HORIZON}")
    panels = figure.subplots(1, len(HORIZONS), sharey=True, squeeze=False)[0]
    for panel, horizon in zip(panels, HORIZONS, strict=True):
        panel.axvline(1.0, color=style.FAINT, lw=1.2)
        for color, (group, label) in zip(_GROUP_COLORS, GROUPS.items(), strict=True):
            mine = [row for row in rows if row["group"] == group and row["steps"] == horizon]
            places = [cases.index((group, row["task"])) for row in mine]
            ratios = np.array(
                [np.exp(np.subtract(row["log_learning"], row["log_frozen"])) for row in mine]
            )
            if mine:
                low, high = ratios.min(axis=1), ratios.max(axis=1)
                panel.hlines(places, low, high, color=color, lw=1.6, alpha=0.45)
                panel.plot([row["ratio"] for row in mine], places, "o", color=color, label=label)
        panel.set(xscale="log", title=f"{horizon:,} steps")
        panel.set_yticks(range(len(cases)), [task for _, task in cases])
        panel.set_ylim(len(cases) - 0.4, -0.6)
        panel.tick_params(axis="y", length=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure
