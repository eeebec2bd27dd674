"""The pictures of `benchmarks.omniglot`: learning curves, and the course of meta-training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
import numpy as np

from alphaopt_jax import plotting
from alphaopt_jax.plotting import style
from benchmarks.omniglot_contenders import LEARNED, OWN, RANDOM, Tested


def write(
    tested: Mapping[str, Sequence[Tested]],
    histories: Mapping[str, Mapping[str, Any]],
    folder: Path,
) -> None:
    """Writes `omniglot.png` and `omniglot_learning.png` into `folder`."""
    style.save_png(curves_figure(tested), folder / "omniglot.png")
    style.save_png(learning_figure(histories), folder / "omniglot_learning.png")


def curves_figure(tested: Mapping[str, Sequence[Tested]]) -> Figure:
    """Accuracy along the steps of a meta-test: a row for each protocol, by kind of start."""
    panels: dict[str, dict[str, np.ndarray]] = {}
    steps = {}
    for name, each in tested.items():
        for start, is_random in (("random start", True), ("learned starts", False)):
            shown = [one for one in each if (one.contender.start == RANDOM) == is_random]
            title = f"{name}, {start}"
            panels[title] = {_label(one): one.curves.accuracies for one in shown}
            steps[title] = shown[0].curves.steps
    return plotting.accuracies_figure(
        panels, steps, title="New characters from few drawings", emphasized=OWN, columns=2
    )


@style.styled
def learning_figure(histories: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Accuracy on validation alphabets over meta-training: where it stood when it stopped."""
    figure = style.new_figure((4.2 * len(histories), 3.6), "Meta-training")
    panels = figure.subplots(1, len(histories), squeeze=False)[0]
    for panel, (protocol, each) in zip(panels, histories.items(), strict=True):
        for name, history in each.items():
            episodes = [line.get("round", line.get("episodes")) for line in history]
            accuracies = [100.0 * line["accuracy"] for line in history]
            is_own = name.startswith("AlphaOpt")
            color = style.COLORS["AlphaOpt"] if is_own else style.color_of(name, each)
            dashes = ":" if is_own and not name.endswith(LEARNED) else "-"
            panel.plot(episodes, accuracies, color=color, ls=dashes, marker=".", label=name)
        panel.set(title=protocol, xlabel="episodes")
        panel.legend(fontsize=7)
    panels[0].set_ylabel("accuracy on validation alphabets, %")
    return figure


def _label(one: Tested) -> str:
    contender = one.contender
    return (
        contender.optimizer
        if contender.start == RANDOM
        else f"{contender.optimizer}, {contender.start}"
    )
