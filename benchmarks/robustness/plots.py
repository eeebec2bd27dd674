"""The picture of `benchmarks.robustness`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
import numpy as np

from alphaopt_jax.plotting import _style as style
from benchmarks.common.modes import ALPHAOPT
from benchmarks.robustness.optimizers import ADAM


@style.styled
def kept_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The share of the progress kept by AlphaOpt and by Adam, a dot for each fault."""
    measured = {row["optimizer"] for row in rows}
    shown = [name for name in (ALPHAOPT, ADAM) if name in measured]
    all_faults = list(dict.fromkeys(row["fault"] for row in rows))
    size = (7.6, 0.23 * len(all_faults) + 1.2)
    figure = style.new_figure(size, "Progress kept despite a fault")
    panel = figure.subplots()
    for name in shown:
        mine = {row["fault"]: row for row in rows if row["optimizer"] == name}
        color = style.color_of(name, dict.fromkeys(shown))
        for height, fault in enumerate(all_faults):
            row = mine[fault]
            kept = np.clip(row["kept"], -0.1, 1.2) if row["finite"] else -0.1
            marker = "o" if row["finite"] else "x"
            label = name if height == len(all_faults) - 1 else None
            panel.plot([kept], [height], marker, color=color, ms=5.5, alpha=0.85, label=label)
    panel.axvline(1.0, color=style.FAINT, lw=0.8)
    panel.set_yticks(range(len(all_faults)), all_faults)
    panel.set(xlim=(-0.15, 1.25), xlabel="share of the progress without a fault (x: lost)")
    panel.invert_yaxis()
    panel.legend(loc="lower left")
    return figure
