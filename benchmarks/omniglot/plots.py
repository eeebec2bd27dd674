"""The pictures of `benchmarks.omniglot`: learning curves, and histories of meta-training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
import numpy as np

from alphaopt_jax import plotting
from alphaopt_jax.plotting import _style as style
from benchmarks.omniglot.learning import Plan
from benchmarks.omniglot.optimizers import ADAM, LEARNED, OWN, RANDOM, SGD
from benchmarks.omniglot.runs import Run


def write(
    runs: Mapping[str, Sequence[Run]],
    histories: Mapping[str, Mapping[str, Any]],
    plans: Mapping[str, Plan],
    folder: Path,
) -> None:
    """Writes `omniglot.png`, `omniglot_few_shots.png` and `omniglot_learning.png` into `folder`.

    The second shows all protocols but the first, if there are others.
    """
    main = next(iter(runs))
    few_shots = {name: each for name, each in runs.items() if name != main}
    style.save_png(curves_figure({main: runs[main]}), folder / "omniglot.png")
    if few_shots:
        style.save_png(curves_figure(few_shots), folder / "omniglot_few_shots.png")
    style.save_png(learning_figure(histories, plans), folder / "omniglot_learning.png")


def curves_figure(runs: Mapping[str, Sequence[Run]]) -> Figure:
    """Accuracy over the steps of a meta-test: a row for each protocol, a column for each start."""
    panels: dict[str, dict[str, np.ndarray]] = {}
    steps = {}
    for name, each in runs.items():
        for start, is_random in (("random start", True), ("learned starts", False)):
            shown = [one for one in each if (one.spec.start == RANDOM) == is_random]
            if not is_random:
                shown = _best_tuned(shown)
            title = f"{name}, {start}"
            panels[title] = {_label(one): one.curves.accuracies for one in shown}
            steps[title] = shown[0].curves.steps
    return plotting.accuracies_figure(
        panels, steps, title="New characters from few drawings", emphasized=OWN, columns=2
    )


def _best_tuned(shown: Sequence[Run]) -> list[Run]:
    """Keeps the better one of SGD and Adam for each start, so that lines do not overlap."""

    def end(one: Run) -> float:
        return float(one.curves.accuracies[:, -1].mean())

    best: dict[tuple[str, str], Run] = {}
    for one in shown:
        optimizer = one.spec.optimizer
        group = one.spec.start, "tuned" if optimizer in (ADAM, SGD) else optimizer
        if group not in best or end(one) > end(best[group]):
            best[group] = one
    return list(best.values())


@style.styled
def learning_figure(
    histories: Mapping[str, Mapping[str, Any]], plans: Mapping[str, Plan]
) -> Figure:
    """Accuracy on validation alphabets over meta-training.

    The baselines are evaluated after the steps that they learn through, AlphaOpt after the steps of
    a meta-test.
    """
    columns = min(3, len(histories))
    rows = -(-len(histories) // columns)
    figure = style.new_figure((4.2 * columns, 3.0 * rows + 0.9), "Meta-training")
    grid = figure.subplots(rows, columns, squeeze=False)
    lines = {}
    for panel, (protocol, each) in zip(grid.ravel(), histories.items(), strict=False):
        ours = plans[protocol].ours
        for name, history in each.items():
            episodes = [line.get("round", line.get("episodes")) for line in history]
            accuracies = [100.0 * line["accuracy"] for line in history]
            is_own = name.startswith("AlphaOpt")
            color = style.COLORS["AlphaOpt"] if is_own else style.color_of(name, each)
            dashes = ":" if is_own and not name.endswith(LEARNED) else "-"
            (lines[name],) = panel.plot(episodes, accuracies, color=color, ls=dashes, marker=".")
        panel.set(
            # Two lines: one would reach into the next panel.
            title=f"{protocol}\nbaselines after {ours.initialization_steps} steps,"
            f" AlphaOpt after {ours.num_steps}",
            xlabel="episodes of meta-training",
        )
        panel.title.set_fontsize(8.5)
    for panel in grid.ravel()[len(histories) :]:
        panel.set_visible(False)
    for panel in grid[:, 0]:
        panel.set_ylabel("validation accuracy, %")
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=columns, fontsize=8)
    return figure


def _label(one: Run) -> str:
    """Label of a line; panel titles say whether the start is random or learned."""
    start, optimizer = one.spec.start, one.spec.optimizer
    if start == RANDOM or optimizer == OWN:
        return optimizer
    if start == LEARNED:
        start = "AlphaOpt's start"
    return f"{start}, {'tuned SGD or Adam' if optimizer in (ADAM, SGD) else optimizer}"
