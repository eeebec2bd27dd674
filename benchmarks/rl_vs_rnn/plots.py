"""The picture of `benchmarks.rl_vs_rnn`: validation scores during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
import numpy as np

from alphaopt_jax.plotting import _style as style
from benchmarks.rl_vs_rnn.cells import BPTT, EVOLUTION, LSTM, POLICY, PPO, PUBLISHED

_LINES = {POLICY: "-", LSTM: "--", PUBLISHED: ":"}
_COLORS = {PPO: "#D55E00", BPTT: "#0072B2", EVOLUTION: "#009E73"}


def write(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Writes `rl_vs_rnn.png` into `folder`."""
    style.save_png(learning_figure(rows), folder / "rl_vs_rnn.png")


@style.styled
def learning_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Scores by environment steps and by time: means over seeds, shaded ranges."""
    figure = style.new_figure((9.5, 3.8), "The network or the learner?")
    panels = figure.subplots(1, 2, sharey=True)
    for row in rows:
        if row["section"] != "loss" or "curves" not in row:
            continue
        scores = np.array([curve["scores"] for curve in row["curves"]])
        steps = np.array(row["curves"][0]["env_steps"])
        label = f"{row['network']}, {row['learner']}"
        minutes = steps / row["env_steps"] * row["seconds"] / 60.0
        for panel, x in zip(panels, (steps / 1e6, minutes), strict=True):
            line = _LINES[row["network"]]
            style.band(panel, x, scores, _COLORS[row["learner"]], label, ls=line)
    panels[0].set(xlabel="millions of environment steps", title="log of final over initial loss")
    panels[1].set(xlabel="minutes")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure
