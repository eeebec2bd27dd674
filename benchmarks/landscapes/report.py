"""The rows, the claims and the page of `benchmarks.landscapes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rich.console
import rich.table

from benchmarks.common import results
from benchmarks.common.modes import FROM_SCRATCH, LEARN
from benchmarks.landscapes import episodes
from benchmarks.landscapes.optimizers import BASELINES, NOT_LEARNING, RATES
from benchmarks.landscapes.runs import Outcome, best_rate

_LAST = 5  # The mean over the last five episodes counts as the result of practice.
_COUNTED = ("unimodal", "few minima")

_GAP_COLUMNS = {
    "landscape": "landscape",
    "kind": "kind",
    "gap_mean": f"{FROM_SCRATCH}: mean",
    "gap_worst": "worst seed",
    "gap_off_worst": "learn=False, worst seed",
    "adam_default_gap": "Adam, 1e-3",
    "adam_tuned_gap": "Adam, tuned",
    "momentum_tuned_gap": "momentum, tuned",
    "sgd_tuned_gap": "SGD, tuned",
}
_STEP_COLUMNS = {
    "landscape": "landscape",
    "steps_first": f"{FROM_SCRATCH}: first episode",
    "steps_last": f"mean of the last {_LAST}",
    "steps_off": "learn=False",
    "learning_helps": "learning helps",
    "pretrained_first": f"{LEARN}: first episode",
    "pretrained_last": f"{LEARN}: mean of the last {_LAST}",
    "adam_default_steps": "Adam, 1e-3",
    "adam_tuned_steps": "Adam, tuned",
    "adam_tuned_rate": "its learning rate",
}


def summarize(outcome: Outcome) -> dict[str, Any]:
    """The row of one landscape; a missed target counts as all steps of the episode."""
    landscape = outcome.landscape
    gaps = episodes.gaps(landscape, outcome.whole.losses)
    row = {
        "landscape": landscape.name,
        "kind": landscape.kind,
        "gap_mean": gaps[:, -1].mean(),
        "gap_worst": gaps[:, -1].max(),
        "gap_best_so_far_worst": gaps.min(axis=1).max(),
        "gap_off_worst": episodes.gaps(landscape, outcome.off.losses)[:, -1].max(),
        "steps_first": outcome.steps_on[:, 0].mean(),
        "steps_last": outcome.steps_on[:, -_LAST:].mean(),
        "steps_off": outcome.steps_off.mean(),
        "pretrained_first": outcome.steps_pretrained[:, 0].mean(),
        "pretrained_last": outcome.steps_pretrained[:, -_LAST:].mean(),
        "steps_by_seed_and_episode": outcome.steps_on,
        "steps_off_by_seed": outcome.steps_off[:, 0],
    }
    row["reached"] = bool(row["gap_best_so_far_worst"] <= episodes.TARGET)
    row["stays"] = bool(row["gap_worst"] <= episodes.TARGET)
    row["learning_helps"] = bool(
        row["steps_last"] < row["steps_off"] and row["steps_last"] < row["steps_first"]
    )
    for name, runs in outcome.baselines.items():
        _, default = BASELINES[name]
        final = episodes.gaps(landscape, runs.losses[:, -1])
        steps = episodes.steps_to_target(landscape, runs.losses)
        for label, index in (
            ("default", RATES.index(default)),
            ("tuned", best_rate(landscape, runs)),
        ):
            key = f"{name.lower()}_{label}"
            row[f"{key}_rate"] = RATES[index]
            row[f"{key}_gap"] = final[index]
            row[f"{key}_steps"] = steps[index]
    return row


def make_claims(rows: Sequence[dict[str, Any]]) -> list[results.Claim]:
    """The claims, most over the unimodal and few-minima landscapes."""
    counted = [row for row in rows if row["kind"] in _COUNTED]
    reached, stays, helped = (
        sum(row[key] for row in counted) for key in ("reached", "stays", "learning_helps")
    )
    count = len(counted)
    compared = [row for row in rows if row["kind"] != "multimodal"]
    ahead = {
        name: sum(row[key] < row["adam_tuned_steps"] for row in compared)
        for name, key in ((FROM_SCRATCH, "steps_last"), (LEARN, "pretrained_last"))
    }
    return [
        results.Claim(
            "landscapes.reached",
            f"{FROM_SCRATCH}: unimodal and few-minima landscapes, of {count}, on which all seeds"
            f" come within {episodes.TARGET} of the minimum",
            reached,
            f">= {count}",
        ),
        results.Claim(
            "landscapes.stays",
            f"{FROM_SCRATCH}: landscapes, of the same {count}, on which all seeds are still there"
            " at the last step",
            stays,
            f">= {count}",
        ),
        results.Claim(
            "landscapes.learning",
            f"{FROM_SCRATCH}: landscapes, of the same {count}, on which the last {_LAST} episodes"
            f" need fewer steps than the first and than {NOT_LEARNING}",
            helped,
            f">= {-(-count // 2)}",
        ),
        *(
            results.Claim(
                f"landscapes.adam.{'pretrained' if name == LEARN else 'scratch'}",
                f"{name}: landscapes, of {len(compared)} without many minima, on which the last"
                f" {_LAST} episodes need fewer steps than Adam at the best of {len(RATES)} rates",
                number,
                ">= 7",
            )
            for name, number in ahead.items()
        ),
    ]


def page(rows: Sequence[dict[str, Any]], num_steps: int) -> str:
    """The page beside the JSON file."""
    first, second = (
        results.markdown_table(rows, columns) for columns in (_GAP_COLUMNS, _STEP_COLUMNS)
    )
    seeds, num_episodes = len(rows[0]["steps_off_by_seed"]), _episodes(rows)
    return (
        "# Landscapes\n\nMade by `python -m benchmarks.landscapes`.\n\n"
        f"Loss above the global minimum after {num_steps} steps, {seeds} seeds. {FROM_SCRATCH}, has"
        f" no tuned constants; tuned baselines have the best of {len(RATES)} learning rates on each"
        f" landscape. – means not finite.\n\n{first}\n"
        f"Steps to come within {episodes.TARGET} of the minimum, for an agent that repeats the"
        f" landscape in {num_episodes} episodes; {num_steps} if it was not reached.\n\n{second}"
    )


def _episodes(rows: Sequence[dict[str, Any]]) -> int:
    return len(rows[0]["steps_by_seed_and_episode"][0])


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the main columns to the terminal."""
    table = rich.table.Table(title="Loss above the minimum at the end, and steps to reach it")
    columns = {
        "landscape": "",
        "gap_worst": FROM_SCRATCH,
        "adam_tuned_gap": "Adam, tuned",
        "steps_first": "first episode",
        "steps_last": "last",
        "steps_off": "learn=False",
        "adam_tuned_steps": "Adam, tuned",
    }
    for heading in columns.values():
        table.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        table.add_row(*(results.cell(row.get(key)) for key in columns))
    rich.console.Console().print(table)
