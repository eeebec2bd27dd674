"""The pictures of `benchmarks.omniglot`: learning curves, and the course of meta-training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
import numpy as np

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


@style.styled
def curves_figure(tested: Mapping[str, Sequence[Tested]]) -> Figure:
    """Accuracy along the steps of a meta-test: a panel for each protocol and kind of start."""
    figure = style.new_figure((4.2 * len(tested), 6.4), "New characters from few drawings")
    panels = figure.subplots(2, len(tested), squeeze=False, sharey="col")
    for column, (name, each) in enumerate(tested.items()):
        for row, is_random in enumerate((True, False)):
            panel = panels[row, column]
            shown = [one for one in each if (one.contender.start == RANDOM) == is_random]
            names = {_label(one): None for one in shown}
            for one in shown:
                accuracies = 100.0 * one.curves.accuracies
                mean = accuracies.mean(axis=0)
                half = 1.96 * accuracies.std(axis=0, ddof=1) / np.sqrt(len(accuracies))
                is_own = one.contender.optimizer == OWN
                label = _label(one)
                color = style.COLORS["AlphaOpt"] if is_own else style.color_of(label, names)
                width = 2.2 if is_own else 1.2
                panel.plot(one.curves.steps, mean, color=color, lw=width, label=label)
                panel.fill_between(
                    one.curves.steps, mean - half, mean + half, color=color, alpha=0.15, lw=0
                )
            start = "random start" if is_random else "learned starts"
            panel.set(title=f"{name}, {start}", xlabel="step")
            panel.legend(fontsize=7, loc="lower right")
        panels[0, column].set_ylabel("accuracy on queries, %")
        panels[1, column].set_ylabel("accuracy on queries, %")
    return figure


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
