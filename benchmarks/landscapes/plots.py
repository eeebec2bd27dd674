"""The pictures of `benchmarks.landscapes`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
import numpy as np

from alphaopt_jax import plotting
from benchmarks.common.modes import FROM_SCRATCH
from benchmarks.landscapes import episodes
from benchmarks.landscapes.optimizers import RATES
from benchmarks.landscapes.runs import Outcome

_POLICY_MAP = "himmelblau"  # Its policy map is drawn: hills, valleys and four minima.


def write(outcomes: Sequence[Outcome], rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Writes all pictures: each landscape, overview, learning curves, policy map, animation.

    Args:
      outcomes: Results by landscape.
      rows: Rows of the table, in the same order.
      folder: Target folder; created if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for outcome, row in zip(outcomes, rows, strict=True):
        figure = plotting.landscape_figure(
            outcome.landscape, traces(outcome, row), title=_title(outcome, row)
        )
        plotting.save_png(figure, folder / f"{outcome.landscape.name}.png")
    plotting.save_png(_overview(outcomes, rows), folder / "overview.png")
    plotting.save_png(_learning(outcomes), folder / "learning.png")
    _animate(outcomes, folder / "learning.gif")
    shown = next((each for each in outcomes if each.landscape.name == _POLICY_MAP), outcomes[0])
    rates = episodes.policy_rates(shown.agent, shown.landscape, resolution=121, num_steps=5)
    # Saved as it is: its shades are more than the palette of `save_png` has.
    _policy_map(shown, rates).savefig(folder / "policy_map.png")


def traces(outcome: Outcome, row: dict[str, Any]) -> dict[str, plotting.Trace]:
    """The first seed's first episode, and each baseline at its best rate, by label."""

    def end(trace: plotting.Trace) -> str:
        gap = episodes.gaps(outcome.landscape, trace.losses)[-1]
        return f"ends {_gap(gap)} above the minimum" if np.isfinite(gap) else "diverges"

    mine = episodes.trace(outcome.whole, 0)
    by_label = {f"{FROM_SCRATCH}\nnot tuned\n{end(mine)}": mine}
    for name, runs in reversed(outcome.baselines.items()):
        rate = row[f"{name.lower()}_tuned_rate"]
        found = episodes.trace(runs, RATES.index(rate))
        by_label[f"{name}, tuned\nrate {rate:g}, best of {len(RATES)}\n{end(found)}"] = found
    return by_label


def _gap(gap: float) -> str:
    if not np.isfinite(gap):
        return "diverged"
    if gap >= 1.0:
        return f"{gap:.0f}"
    return f"{gap:.1g}" if gap >= 1e-6 else "< 1e-6"


def _num_steps(outcome: Outcome) -> int:
    return outcome.whole.losses.shape[-1] - 1


def _title(outcome: Outcome, row: dict[str, Any]) -> str:
    def steps(count: int) -> str:
        return str(count) if count < _num_steps(outcome) else "not reached"

    mine, adam = steps(outcome.steps_first[0]), steps(row["adam_tuned_steps"])
    counted = f"{FROM_SCRATCH}: {mine}; tuned Adam: {adam}"
    return f"{outcome.landscape.title}, steps to the minimum: {counted}"


def _learning(outcomes: Sequence[Outcome]) -> Figure:
    limit = _num_steps(outcomes[0])
    reached = [each for each in outcomes if min(each.steps_on.min(), each.steps_off.min()) < limit]
    title = f"{FROM_SCRATCH}: steps to the minimum by episode"
    if missed := [
        each.landscape.title for each in outcomes if not any(each is other for other in reached)
    ]:
        title += f" (never reached: {', '.join(missed)})"
    return plotting.learning_figure(
        {each.landscape.title: (each.steps_on, each.steps_off) for each in reached or outcomes},
        limit=limit,
        title=title,
        columns=5,
    )


def _overview(outcomes: Sequence[Outcome], rows: Sequence[dict[str, Any]]) -> Figure:
    runs, captions = [], []
    for outcome, row in zip(outcomes, rows, strict=True):
        found = list(traces(outcome, row).values())
        names = (FROM_SCRATCH, f"Adam, best of {len(RATES)} rates")
        runs.append(dict(zip(names, found, strict=False)))
        captions.append(f"{_gap(row['gap_mean'])}  |  {_gap(row['adam_tuned_gap'])}")
    return plotting.overview_figure(
        [outcome.landscape for outcome in outcomes],
        runs,
        captions,
        title=f"Final loss above the minimum ({FROM_SCRATCH}  |  tuned Adam)",
    )


def _animate(outcomes: Sequence[Outcome], path: Path) -> None:
    """Animates the landscape on which the first seed improved most."""

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
        title=f"{FROM_SCRATCH}, repeats {shown.landscape.title}",
    )


def _policy_map(outcome: Outcome, rates: np.ndarray) -> Figure:
    return plotting.policy_map_figure(
        outcome.landscape,
        rates,
        title=f"Learning rates of {FROM_SCRATCH}, on {outcome.landscape.title}"
        f" after {outcome.steps_on.shape[1]} episodes",
    )
