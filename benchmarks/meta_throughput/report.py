"""The rows, the claim and the page of `benchmarks.meta_throughput`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.common import results
from benchmarks.meta_throughput.timing import Timing

_RATES = {
    "environment_steps_a_second": "environment steps per second",
    "parameter_steps_a_second": "parameter steps per second",
}
_SHARES = {
    "share_of_the_tasks": "tasks (share)",
    "share_of_the_agent": "agent (share)",
    "share_of_learning": "learning (share)",
}
_COLUMNS = {
    "family": "family",
    "parameters": "parameters",
    "version": "version",
    "devices": "devices",
    "seconds_a_round": "seconds per round",
    **_RATES,
    **_SHARES,
}


def row(version: str, family: str, timing: Timing) -> dict[str, Any]:
    """One row of the table."""
    return {
        "version": version,
        "devices": timing.devices,
        "family": family,
        "parameters": timing.parameters,
        "seconds_a_round": timing.round,
        "environment_steps_a_second": timing.env_steps / timing.round,
        "parameter_steps_a_second": timing.env_steps * timing.parameters / timing.round,
        "share_of_the_tasks": timing.gradients / timing.round,
        "share_of_the_agent": (timing.rollout - timing.gradients) / timing.round,
        "share_of_learning": (timing.round - timing.rollout) / timing.round,
    }


def totals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per version: all families together, with one round of each."""
    total_rows = []
    for version in dict.fromkeys(row["version"] for row in rows):
        found = [row for row in rows if row["version"] == version]
        seconds = sum(row["seconds_a_round"] for row in found)
        means = {
            key: sum(row[key] * row["seconds_a_round"] for row in found) / seconds
            for key in (*_RATES, *_SHARES)
        }
        total_rows.append(
            {
                "family": "**all**",
                "version": version,
                "devices": found[0].get("devices", 1),
                "seconds_a_round": seconds,
                **means,
            }
        )
    return total_rows


def make_claims(rows: Sequence[dict[str, Any]]) -> list[results.Claim]:
    """The gain from "before" to "now", if both were measured."""
    by_version = {row["version"]: row for row in totals(rows)}
    if not {"before", "now"} <= by_version.keys():
        return []
    key = "environment_steps_a_second"
    text = (
        "environment steps per second of meta-training, relative to before the step was made cheap"
    )
    ratio = by_version["now"][key] / by_version["before"][key]
    return [results.Claim("meta_throughput.gain", text, ratio, ">= 2")]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """All rows and the totals, in Markdown."""
    return results.markdown_table([*rows, *totals(rows)], _COLUMNS)


def page(rows: Sequence[dict[str, Any]], horizon: int) -> str:
    """The page beside the JSON file."""
    return (
        "# Throughput of meta-training\n\nMade by `python -m benchmarks.meta_throughput`: rounds of"
        f" {horizon} steps in 32 environments, after compilation; medians.\n\n{table(rows)}"
    )
