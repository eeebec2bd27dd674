"""The rows, the claims and the page of `benchmarks.online_learning`."""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

import numpy as np

from benchmarks.common import results
from benchmarks.common.modes import LEARN_NO_HORIZON, NO_HORIZON
from benchmarks.online_learning.runs import HORIZONS
from benchmarks.zero_tuning import statistics

AGENTS = {"base": "pretrained agent", None: "fresh agent"}
"""AlphaOpt's argument `agent`, and its name in tables."""
USUAL = 1.0
"""The multiplier that the others are compared with."""
_GAP = math.log(1.2)
"""Smallest log ratio of losses that counts as a gap to the usual multiplier."""
_LANDSCAPE_COLUMNS = {
    "task": "landscape",
    "steps": "steps",
    "frozen": NO_HORIZON,
    "learning": LEARN_NO_HORIZON,
    "ratio": "ratio",
}
_RATE_COLUMNS = {
    "agent": "agent",
    "task": "task",
    "multiplier": "learning_rate",
    "frozen": "learn=False",
    "learning": "learn=True",
    "ratio": "ratio",
}
_GAP_COLUMNS = {
    "agent": "agent",
    "multiplier": "learning_rate",
    "frozen": "loss, learn=False",
    "learning": "loss, learn=True",
    "interval": "95 % interval",
    "left": "gaps at least halved",
    "share": "part of the gap that is left",
}


def landscape_rows(task: str, frozen: np.ndarray, learning: np.ndarray) -> list[dict[str, Any]]:
    """One row for each of `HORIZONS`.

    Args:
      task: Name of the landscape.
      frozen: `float[H, S]`, log losses with a frozen agent.
      learning: `float[H, S]`, log losses with `learn=True`.
    """
    return [
        {"kind": "landscape", "task": task, "steps": horizon}
        | _pair(frozen[index], learning[index])
        for index, horizon in enumerate(HORIZONS)
    ]


def rate_rows(
    task: str,
    agent: str,
    multipliers: Sequence[float],
    frozen: np.ndarray,
    learning: np.ndarray,
) -> list[dict[str, Any]]:
    """One row for each multiplier.

    Args:
      task: Name of the task.
      agent: A value of `AGENTS`.
      multipliers: Values of `learning_rate`; one of them is `USUAL`.
      frozen: `float[R, S]`, log losses without learning.
      learning: `float[R, S]`, log losses with it.
    """
    usual = frozen[list(multipliers).index(USUAL)]
    return [
        {"kind": "rate", "task": task, "agent": agent, "multiplier": multiplier}
        | _pair(frozen[index], learning[index])
        | {"log_usual": usual}
        for index, multiplier in enumerate(multipliers)
    ]


def _pair(frozen: np.ndarray, learning: np.ndarray) -> dict[str, Any]:
    return {
        "frozen": float(np.exp(frozen.mean())),
        "learning": float(np.exp(learning.mean())),
        "ratio": float(np.exp((learning - frozen).mean())),
        "log_frozen": frozen,
        "log_learning": learning,
    }


def gap_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each agent and multiplier, over all tasks.

    Losses are geometric means of ratios to the loss without learning at the multiplier `USUAL`. A
    gap is a ratio above 1.2 without learning; `closed` counts those of which learning leaves at
    most half, as a logarithm, and `share` is the part that it leaves of their sum.
    """
    summary = []
    pairs = dict.fromkeys((row["agent"], row["multiplier"]) for row in rows)
    for agent, multiplier in pairs:
        mine = [row for row in rows if (row["agent"], row["multiplier"]) == (agent, multiplier)]
        frozen, learning, usual = (
            np.array([row[key] for row in mine])[:, None, :]
            for key in ("log_frozen", "log_learning", "log_usual")
        )
        gaps, left = ((each - usual).mean(axis=(1, 2)) for each in (frozen, learning))
        is_gap = gaps > _GAP
        summary.append(
            {
                "kind": "gap",
                "agent": agent,
                "multiplier": multiplier,
                "frozen": statistics.loss_ratio(frozen, usual),
                "learning": statistics.loss_ratio(learning, usual),
                "learning_interval": statistics.ratio_interval(learning, usual),
                "gaps": int(is_gap.sum()),
                "closed": int((left <= 0.5 * gaps)[is_gap].sum()),
                "share": float(left[is_gap].sum() / gaps[is_gap].sum()) if is_gap.any() else None,
            }
        )
    return summary


def landscape_summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The geometric mean of the loss ratios on landscapes, and the share of those below 1."""
    frozen, learning = (
        np.array([row[key] for row in rows]).reshape(-1, len(HORIZONS), len(rows[0][key]))
        for key in ("log_frozen", "log_learning")
    )
    return {
        "kind": "landscapes",
        "ratio": statistics.loss_ratio(learning, frozen),
        "ratio_interval": statistics.ratio_interval(learning, frozen),
        "better": statistics.win_fraction(learning, frozen),
    }


def make_claims(gaps: Sequence[dict[str, Any]], landscapes: dict[str, Any]) -> list[results.Claim]:
    """Learning makes up for rates that are off, and does no harm where they are right."""
    claims = [
        results.Claim(
            "online_learning.landscapes",
            f"landscapes: geometric mean of the loss ratio of {LEARN_NO_HORIZON} to {NO_HORIZON}",
            landscapes["ratio"],
            "< 1",
        )
    ]
    for agent in dict.fromkeys(row["agent"] for row in gaps):
        mine = [row for row in gaps if row["agent"] == agent]
        (usual,) = (row for row in mine if row["multiplier"] == USUAL)
        off = [row for row in mine if row["gaps"] and row["multiplier"] != USUAL]
        name = agent.split()[0]
        claims += [
            results.Claim(
                f"online_learning.{name}.closed",
                f"{agent}, learning_rate far from 1: part of the tasks with a loss over 1.2 times"
                " that at 1 without learning, of which learn=True leaves at most half of the log"
                " ratio",
                sum(row["closed"] for row in off) / max(sum(row["gaps"] for row in off), 1),
                ">= 1",
            ),
            *(
                results.Claim(
                    f"online_learning.{name}.times_{row['multiplier']:.2g}",
                    f"{agent}, learn=True, learning_rate={row['multiplier']:.2g}: geometric mean of"
                    " the loss relative to learn=False at 1",
                    row["learning"],
                    "<= 1.15",
                )
                for row in mine
                if row["multiplier"] != USUAL
            ),
            results.Claim(
                f"online_learning.{name}.usual",
                f"{agent}, learning_rate=1: geometric mean of the loss ratio of learn=True to"
                " learn=False",
                usual["learning"],
                "<= 1.03",
            ),
        ]
    return claims


def gap_table(gaps: Sequence[dict[str, Any]]) -> str:
    """The multipliers as a table in Markdown."""
    shown = [
        row
        | {
            "multiplier": f"{row['multiplier']:.2g}",
            "interval": " to ".join(results.cell(each) for each in row["learning_interval"]),
            "left": f"{row['closed']} of {row['gaps']}" if row["gaps"] else "–",
            "share": "–" if row["share"] is None else f"{100 * row['share']:.0f} %",
        }
        for row in gaps
    ]
    return results.markdown_table(shown, _GAP_COLUMNS)


def landscape_sentence(summary: dict[str, Any]) -> str:
    """The landscapes in a sentence."""
    low, high = summary["ratio_interval"]
    return (
        f"On landscapes the loss of `learn=True` is {results.cell(summary['ratio'])} times that of"
        f" the frozen agent (95 % interval {results.cell(low)} to {results.cell(high)}), and lower"
        f" on {100 * summary['better']:.0f} % of the pairs of landscape and number of steps."
    )


def page(
    landscapes: Sequence[dict[str, Any]], rates: Sequence[dict[str, Any]], command: str
) -> str:
    """The page beside the JSON file."""
    named = [row | {"multiplier": f"{row['multiplier']:.2g}"} for row in rates]
    seeds = len(rates[0]["log_learning"])
    return (
        f"# Online learning\n\nMade by `{command}`.\n\nAlphaOpt with `learn=True`, compared with"
        " the same agent without learning. The number of steps is not given.\n\n"
        f"## Rates that are off\n\nLosses after {HORIZONS[-1]:,} steps at `eval_params`, relative"
        f" to `learning_rate=1` without learning. Geometric means over {seeds} seeds and the tasks"
        f" below. Losses below {statistics.FLOOR:g} times the initial loss count as that value."
        f" Intervals by a bootstrap over tasks and seeds.\n\n{gap_table(gap_rows(rates))}\n"
        "![Loss by multiplier](online_learning.png)\n\n![One training](online_learning_course.png)"
        "\n\n## Landscapes\n\nLoss above the minimum, at"
        " the last parameters. Seeds differ only in the exploration."
        f" {landscape_sentence(landscape_summary(landscapes))}\n\n"
        f"{results.markdown_table(landscapes, _LANDSCAPE_COLUMNS)}\n"
        f"## Every task\n\n{results.markdown_table(named, _RATE_COLUMNS)}"
    )
