"""The rows, the claims and the page of `benchmarks.online_learning`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common import results
from benchmarks.common.modes import LEARN_NO_HORIZON, NO_HORIZON
from benchmarks.online_learning.runs import HORIZONS
from benchmarks.online_learning.tasks import GROUPS, LEARNING_RATE, Case
from benchmarks.zero_tuning import statistics

_COLUMNS = {
    "group": "tasks",
    "task": "task",
    "steps": "steps",
    "frozen": NO_HORIZON,
    "learning": LEARN_NO_HORIZON,
    "ratio": "ratio",
}
_GROUP_COLUMNS = {
    "group": "tasks",
    "ratio": "loss ratio, learn=True to frozen",
    "interval": "95 % interval",
    "better": "tasks with a lower loss",
}


def case_rows(case: Case, frozen: np.ndarray, learning: np.ndarray) -> list[dict[str, Any]]:
    """One row for each of `HORIZONS`.

    Args:
      case: The task.
      frozen: `float[H, S]`, log losses with a frozen agent.
      learning: `float[H, S]`, log losses with `learn=True`.
    """
    return [
        {
            "kind": "case",
            "group": case.group,
            "task": case.name,
            "steps": horizon,
            "frozen": float(np.exp(frozen[index].mean())),
            "learning": float(np.exp(learning[index].mean())),
            "ratio": float(np.exp((learning - frozen)[index].mean())),
            "log_frozen": frozen[index],
            "log_learning": learning[index],
        }
        for index, horizon in enumerate(HORIZONS)
    ]


def group_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per group: geometric mean of the loss ratios, and the share of tasks below 1."""
    summary = []
    for group in dict.fromkeys(row["group"] for row in rows):
        mine = [row for row in rows if row["group"] == group]
        frozen, learning = (
            np.array([row[key] for row in mine]).reshape(-1, len(HORIZONS), len(mine[0][key]))
            for key in ("log_frozen", "log_learning")
        )
        summary.append(
            {
                "kind": "group",
                "group": group,
                "ratio": statistics.loss_ratio(learning, frozen),
                "ratio_interval": statistics.ratio_interval(learning, frozen),
                "better": statistics.win_fraction(learning, frozen),
            }
        )
    return summary


def make_claims(summary: Sequence[dict[str, Any]]) -> list[results.Claim]:
    """One claim per group: `learn=True` lowers the loss."""
    return [
        results.Claim(
            f"online_learning.{row['group']}",
            f"{GROUPS[row['group']]}: geometric mean of the loss ratio of {LEARN_NO_HORIZON}"
            f" to {NO_HORIZON}",
            row["ratio"],
            "< 1",
        )
        for row in summary
    ]


def group_table(summary: Sequence[dict[str, Any]]) -> str:
    """The groups as a table in Markdown."""
    shown = [
        {
            "group": GROUPS[row["group"]],
            "ratio": row["ratio"],
            "interval": " to ".join(results.cell(each) for each in row["ratio_interval"]),
            "better": f"{100 * row['better']:.0f} %",
        }
        for row in summary
    ]
    return results.markdown_table(shown, _GROUP_COLUMNS)


def page(rows: Sequence[dict[str, Any]], summary: Sequence[dict[str, Any]], command: str) -> str:
    """The page beside the JSON file."""
    named = [row | {"group": GROUPS[row["group"]]} for row in rows]
    return (
        f"# Online learning\n\nMade by `{command}`.\n\nThe pretrained agent with `learn=True`"
        " against the same agent frozen, on tasks unlike those of its training: two-dimensional"
        " landscapes (loss above the minimum), and the test suite's cheap tasks with"
        f" `learning_rate={LEARNING_RATE:g}`, a tenth of the rates that it chooses. The number of"
        " steps is not given. On landscapes, seeds differ only in the exploration. Geometric means"
        f" over {len(rows[0]['log_learning'])} seeds. Losses below {statistics.FLOOR:g} times the"
        " initial loss count as that value. Intervals by a bootstrap over tasks and seeds."
        f"\n\n{group_table(summary)}\n![Loss ratios](online_learning.png)\n\n"
        f"{results.markdown_table(named, _COLUMNS)}"
    )
