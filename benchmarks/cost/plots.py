"""The picture of `benchmarks.cost`: cost per parameter over the number of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from alphaopt_jax.plotting import _style as style
from benchmarks.common import modes
from benchmarks.cost import optimizers

_COLORS = {
    optimizers.ADAM: style.COLORS["Adam"],
    modes.ALPHAOPT: style.COLORS["AlphaOpt"],
    optimizers.OWN: "#D98C8C",
    modes.LEARN: "#E69F00",
    modes.FROM_SCRATCH: "#8C6D31",
    "Prodigy": "#009E73",
    "Muon": "#5B4A9E",
    optimizers.SOAP: "#17BECF",
    "coordinatewise LSTM": "#7F7F7F",
}


def write(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Writes `cost.png` into `folder`."""
    style.save_png(cost_figure(rows), folder / "cost.png")


@style.styled
def cost_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Nanoseconds per parameter, and the ratio to Adam, for one float32 tensor of each size."""
    steps = [
        row
        for row in rows
        if row["kind"] == "step" and row["model"] == "one tensor" and row["dtype"] == "float32"
    ]
    figure = Figure(figsize=(9.0, 4.4), layout="constrained")
    axes = figure.subplots(1, 2)
    for name, color in _COLORS.items():
        found = sorted(
            (row for row in steps if row["optimizer"] == name), key=lambda row: row["parameters"]
        )
        sizes = [row["parameters"] for row in found]
        for axis, key in zip(axes, ("nanoseconds_a_parameter", "times_adam"), strict=True):
            axis.loglog(sizes, [row[key] for row in found], "o-", color=color, ms=3.5, label=name)
        low, high = zip(*(row["times_adam_interval"] for row in found), strict=True)
        axes[1].fill_between(sizes, low, high, color=color, alpha=0.15, lw=0)
    axes[0].set(title="One optimizer step", ylabel="nanoseconds per parameter")
    axes[1].set(title="Compared with Adam", ylabel="ratio to Adam")
    axes[1].axhline(1.2, color=style.FAINT, lw=0.8, ls="--")
    ticks = [1, 2, 5, 10, 20, 50, 100, 200, 500]
    axes[1].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    for axis in axes:
        axis.set_xlabel("parameters")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return figure
