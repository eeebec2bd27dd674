"""The pictures of `benchmarks.landscapes`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
import numpy as np

from alphaopt_jax import plotting
from benchmarks.landscapes import runs as runs_lib

if TYPE_CHECKING:  # That module runs this one.
    from benchmarks.landscapes.__main__ import Outcome

_SHOWN = "himmelblau"  # Whose policy map is drawn: hills, valleys and four minima.


def write(
    outcomes: Sequence[Outcome], rows: Sequence[dict[str, Any]], num_steps: int, folder: Path
) -> None:
    """Writes a picture of each landscape, an overview, the learning curves, a map, an animation.

    Args:
      outcomes: What was measured.
      rows: The tables' rows, in the same order.
      num_steps: Steps of an episode.
      folder: Where to write; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for outcome, row in zip(outcomes, rows, strict=True):
        figure = plotting.landscape_figure(
            outcome.landscape, traces(outcome, row), title=_title(outcome, row, num_steps)
        )
        plotting.save_png(figure, folder / f"{outcome.landscape.name}.png")
    plotting.save_png(_overview(outcomes, rows), folder / "overview.png")
    plotting.save_png(_learning(outcomes, num_steps), folder / "learning.png")
    _animate(outcomes, folder / "learning.gif")
    shown = next((each for each in outcomes if each.landscape.name == _SHOWN), outcomes[0])
    rates = runs_lib.policy_rates(shown.agent, shown.landscape, resolution=121, num_steps=5)
    episodes = shown.steps_on.shape[1]
    figure = plotting.policy_map_figure(
        shown.landscape,
        rates,
        title=f"Rates that the agent would choose on {shown.landscape.title}"
        f" after {episodes} episodes",
    )
    figure.savefig(folder / "policy_map.png")  # Its shades are more than a palette has.


def traces(outcome: Outcome, row: dict[str, Any]) -> dict[str, plotting.Trace]:
    """The first seed's fresh agent, and each baseline at its best rate, by name."""

    def end(trace: plotting.Trace) -> str:
        gap = runs_lib.gaps(outcome.landscape, trace.losses)[-1]
        return f"ends {_gap(gap)} above the minimum" if np.isfinite(gap) else "diverges"

    mine = runs_lib.trace(outcome.fresh, 0)
    result = {f"AlphaOpt\nfresh agent, nothing tuned\n{end(mine)}": mine}
    for name, episodes in reversed(outcome.baselines.items()):
        rate = row[f"{name.lower()}_tuned_rate"]
        found = runs_lib.trace(episodes, runs_lib.RATES.index(rate))
        note = f"rate {rate:g}, its best of {len(runs_lib.RATES)}"
        result[f"{name}\n{note}\n{end(found)}"] = found
    return result


def _gap(gap: float) -> str:
    if not np.isfinite(gap):
        return "diverged"
    if gap >= 1.0:
        return f"{gap:.0f}"
    return f"{gap:.1g}" if gap >= 1e-6 else "< 1e-6"


def _title(outcome: Outcome, row: dict[str, Any], num_steps: int) -> str:
    title = outcome.landscape.title
    mine, adam = outcome.steps_first[0], row["adam_tuned_steps"]
    if mine < num_steps and adam < num_steps:
        return f"{title}: AlphaOpt needs {mine} steps untuned, Adam {adam} tuned"
    if mine < num_steps:
        return f"{title}: AlphaOpt needs {mine} steps untuned, tuned Adam misses"
    if adam < num_steps:
        return f"{title}: AlphaOpt is not there after {num_steps} steps, tuned Adam after {adam}"
    return f"{title}: neither AlphaOpt nor tuned Adam finds the minimum"


def _learning(outcomes: Sequence[Outcome], num_steps: int) -> Figure:
    reached = [
        each for each in outcomes if min(each.steps_on.min(), each.steps_off.min()) < num_steps
    ]
    title = "Steps to the minimum, episode by episode"
    if missed := [
        each.landscape.title for each in outcomes if not any(each is other for other in reached)
    ]:
        title += f" (never found: {', '.join(missed)})"
    return plotting.learning_figure(
        {each.landscape.title: (each.steps_on, each.steps_off) for each in reached or outcomes},
        limit=num_steps,
        title=title,
        columns=5,
    )


def _overview(outcomes: Sequence[Outcome], rows: Sequence[dict[str, Any]]) -> Figure:
    runs, captions = [], []
    for outcome, row in zip(outcomes, rows, strict=True):
        found = list(traces(outcome, row).values())
        names = ("AlphaOpt, nothing tuned", f"Adam, best of {len(runs_lib.RATES)} rates")
        runs.append(dict(zip(names, found, strict=False)))
        captions.append(f"{_gap(row['gap_mean'])}  |  {_gap(row['adam_tuned_gap'])}")
    return plotting.overview_figure(
        [outcome.landscape for outcome in outcomes],
        runs,
        captions,
        title="A fresh agent on every landscape, and how far above the minimum it ends"
        " (AlphaOpt  |  Adam)",
    )


def _animate(outcomes: Sequence[Outcome], path: Path) -> None:
    """Animates the landscape on which the shown agent gained most, so that one sees something."""

    def gain(outcome: Outcome) -> float:
        steps = outcome.steps_on[0]
        return float(np.log(steps[0] / max(steps[-3:].mean(), 1.0)))

    counted = [each for each in outcomes if each.landscape.kind in ("unimodal", "few minima")]
    shown = max(counted or outcomes, key=gain)
    plotting.learning_animation(
        path,
        shown.landscape,
        plotting.EpisodeHistory(
            shown.practice,
            shown.steps_on[0].tolist(),
            steps_without_learning=float(shown.steps_off[0, 0]),
        ),
        title=f"AlphaOpt learns {shown.landscape.title} by practice",
    )
