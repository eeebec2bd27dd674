"""The claims, the tables and the page of `benchmarks.zero_tuning`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math
from typing import Any, NamedTuple

import numpy as np
from rich import console as rich_console
from rich import table as rich_table

from alphaopt_jax.tasks.suite import catalog
from benchmarks.common import results
from benchmarks.common.results import Claim
from benchmarks.zero_tuning import optimizers, runs, statistics
from benchmarks.zero_tuning.comparison import (
    ADAM_DEFAULT,
    ADAM_TUNED,
    BEST_FREE,
    COSINE_TUNED,
    RIVALS_TUNED,
    TUNED,
    Comparison,
)
from benchmarks.zero_tuning.optimizers import ALPHAOPT, LEARN, NO_HORIZON


class _Bar(NamedTuple):
    """Shares of pairs that AlphaOpt should win against a baseline.

    Attributes:
      name: Name of the baseline in claims.
      text: The baseline in words.
      horizon_known: Least share with the number of steps given.
      no_horizon: The same without it; None for no claim.
    """

    name: str
    text: str
    horizon_known: float
    no_horizon: float | None


_BARS = {
    ADAM_TUNED: _Bar("tuned_adam", "Adam at the best of 15 rates for each task", 0.9, 0.88),
    COSINE_TUNED: _Bar("tuned_cosine", "cosine Adam at the best of 15 for each task", 0.8, 0.75),
    BEST_FREE: _Bar("tuning_free", "the best tuning-free optimizer for each task", 0.88, 0.88),
    ADAM_DEFAULT: _Bar("adam_default", "Adam at 1e-3", 0.97, 0.97),
    RIVALS_TUNED[0]: _Bar(
        "cosine_soap", "cosine SOAP at the best of 8 rates for each task", 0.45, 0.4
    ),
    RIVALS_TUNED[1]: _Bar(
        "cosine_muon", "cosine Muon at the best of 8 rates for each task", 0.6, None
    ),
}
_AS_LOW = 1.02  # The ratio of two noisy losses that are equal may exceed 1 by this much.

SUMMARY_COLUMNS = {
    "optimizer": "optimizer",
    "tuned": "tuned",
    "ratio": "loss ratio to tuned Adam",
    "ratio_interval": "95 % interval",
    "rank": "rank",
    f"wins: {ADAM_TUNED}": "wins: tuned Adam",
    f"wins: {COSINE_TUNED}": "tuned cosine Adam",
    f"wins: {BEST_FREE}": "best tuning-free",
    f"wins: {ADAM_DEFAULT}": "Adam 1e-3",
    "speed_up": "speed-up",
    "diverged": "diverged",
}
_RIVAL_COLUMNS = {f"wins: {entry}": entry.replace(", tuned", "") for entry in RIVALS_TUNED}
_PAIR_ENTRIES = (
    ALPHAOPT,
    NO_HORIZON,
    LEARN,
    ADAM_TUNED,
    COSINE_TUNED,
    BEST_FREE,
    ADAM_DEFAULT,
    *RIVALS_TUNED,
)


def summary_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Headings of the summary by key; those of rivals only if they were run."""
    rivals = {
        key: heading
        for key, heading in _RIVAL_COLUMNS.items()
        if any(row.get(key) is not None for row in rows)
    }
    columns: dict[str, str] = {}
    for key, heading in SUMMARY_COLUMNS.items():
        if key == "speed_up":
            columns |= rivals
        columns[key] = heading
    return columns


def make_claims(table: Comparison, rows: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """The claims of the full comparison."""
    by_name = {row["optimizer"]: row for row in rows}
    ours, no_horizon = by_name[ALPHAOPT], by_name[NO_HORIZON]
    claims = [
        Claim(
            f"zero_tuning.{prefix}.{each.name}",
            f"{row['optimizer']}: share of task-horizon pairs with a lower training loss than"
            f" {each.text}",
            row[f"wins: {baseline}"],
            f">= {bar}",
        )
        for row, prefix, key in (
            (ours, "wins", "horizon_known"),
            (no_horizon, "no_horizon.wins", "no_horizon"),
        )
        for baseline, each in _BARS.items()
        if (bar := getattr(each, key)) is not None and row.get(f"wins: {baseline}") is not None
    ]
    long_ratios = [
        table.results[ALPHAOPT, task, runs.LONG].logs.mean()
        - table.results[ALPHAOPT, task, runs.SHORTER].logs.mean()
        for task in table.tasks
        if catalog.SUITE[task].cheap
    ]
    large_wins = [
        table.results[ALPHAOPT, task, runs.LARGE_HORIZON].logs.mean()
        < table.results[ADAM_DEFAULT, task, runs.LARGE_HORIZON].logs.mean()
        for task in catalog.LARGE
    ]
    return [
        *claims,
        Claim(
            "zero_tuning.ratio",
            "geometric mean of the loss ratio to Adam tuned on each task",
            ours["ratio"],
            "<= 0.46",
        ),
        Claim(
            "zero_tuning.no_horizon.ratio",
            f"the same of {NO_HORIZON}, at averaged parameters",
            no_horizon["ratio"],
            "<= 0.49",
        ),
        Claim(
            "zero_tuning.rank",
            "rank of the loss ratio among all optimizers with one setting for all tasks",
            ours["rank"],
            "== 1",
        ),
        Claim(
            "zero_tuning.diverged",
            "runs with a final loss that is above the initial one or not finite",
            sum(result.diverged for key, result in table.results.items() if key[0] == ALPHAOPT),
            "== 0",
        ),
        Claim(
            "zero_tuning.length",
            f"largest ratio of the loss after {runs.LONG:,} steps to that after {runs.SHORTER:,}",
            float(np.exp(max(long_ratios))),
            f"<= {_AS_LOW}",
        ),
        Claim(
            "zero_tuning.size",
            "share of networks of over 600,000 parameters with a lower loss than Adam at 1e-3",
            float(np.mean(large_wins)),
            ">= 1",
        ),
        *_learning_claims(table),
    ]


def _learning_claims(table: Comparison) -> list[Claim]:
    """Claims about `learn=True`, if it was run."""
    if LEARN not in table.entries:
        return []
    low, _ = statistics.ratio_interval(table.logs(LEARN), table.logs(ALPHAOPT))
    return [
        Claim(
            "zero_tuning.learning",
            f"lower end of the 95 % interval of the loss ratio of {LEARN} to {ALPHAOPT}; at 1 or"
            " below, learning is not measurably worse",
            low,
            "<= 1",
        ),
        Claim(
            "zero_tuning.learning.diverged",
            f"runs of {LEARN} with a final loss that is above the initial one or not finite",
            sum(result.diverged for key, result in table.results.items() if key[0] == LEARN),
            "== 0",
        ),
    ]


def displayed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `comparison.optimizer_rows` as tables show them."""
    shown = []
    for row in rows:
        low, high = row["ratio_interval"]
        cells = {key: row.get(key) for key in summary_columns(rows)}
        cells |= {
            "tuned": "per task" if row["optimizer"] in TUNED else "no",
            "ratio_interval": f"{results.cell(low)} to {results.cell(high)}",
        }
        for key, value in cells.items():
            if key.startswith("wins: ") and value is not None:
                cells[key] = f"{100 * value:.0f} %"
        if row.get("speed_up") is not None and row["speed_up_censored"]:
            cells["speed_up"] = f"> {results.cell(row['speed_up'])}"
        shown.append(cells)
    return shown


def loss_table(table: Comparison, figure: str) -> str:
    """A Markdown table with a line for each task and number of steps.

    Args:
      table: All results.
      figure: "train" or "evaluation".
    """
    pairs = sorted({key[1:] for key in table.results}, key=lambda pair: (pair[1], pair[0]))
    lines = []
    for task, horizon in pairs:
        line: dict[str, Any] = {"task": task, "steps": horizon}
        for entry in _PAIR_ENTRIES:
            try:
                result = table.find(entry, task, horizon)
            except KeyError:
                continue
            values = [math.nan if each is None else each for each in getattr(result, figure)]
            line[entry] = results.cell(float(np.mean(values)))
            if entry in TUNED:
                line[entry] += f" ({result.rate:g})"
            elif entry == BEST_FREE:
                line[entry] += f" ({table.best_free(task, horizon)})"
        lines.append(line)
    columns = [entry for entry in _PAIR_ENTRIES if any(entry in line for line in lines)]
    return results.markdown_table(lines, {key: key for key in ("task", "steps", *columns)})


def page(
    table: Comparison,
    rows: Sequence[Mapping[str, Any]],
    command: str,
    name: str = "zero_tuning",
) -> str:
    """The page beside the JSON file.

    Args:
      table: All results.
      rows: Rows of `comparison.optimizer_rows`.
      command: The command that made the page.
      name: Name of the files and of the folder of pictures.
    """
    settings = table.settings
    horizons = " and ".join(f"{each:,}" for each in settings.horizons)
    summary = results.markdown_table(displayed(rows), summary_columns(rows))
    return (
        f"# Zero tuning\n\nMade by `{command}`.\n\n"
        f"{len(table.tasks)} tasks on which no agent was trained, {horizons} steps,"
        f" {len(settings.seeds)} seeds. The training loss is the mean over 32 batches, the same for"
        " all optimizers, at the final parameters. Each tuned optimizer has the best of"
        f" {len(settings.grid)} learning rates for each task and number of steps, chosen on"
        f" {len(settings.selection_seeds)} other seeds; all other optimizers have one setting for"
        ' all tasks. "Best single rate" is the best rate over the whole suite. "Best tuning-free"'
        " is the best of optax's tuning-free optimizers for each task and number of steps, chosen"
        f" on the reported seeds, which favors them.{_about_rivals(table)}\n\n"
        "Ratios are geometric means; intervals are from a bootstrap over tasks and seeds. Losses"
        f" are clipped to between {statistics.FLOOR:g} and {statistics.CEILING:g} times the initial"
        " loss; a loss that is not finite counts as the latter. The rank is among the optimizers"
        " with one setting. The speed-up is the number of steps in which Adam, at the best rate for"
        " each number of steps, reaches the same smoothed training loss, divided by the optimizer's"
        " own steps; > means that on some tasks Adam did not reach it in the steps it was run,"
        f" which are counted instead.\n\n{summary}\n"
        f"![Loss ratios]({name}/ratios.png)\n\n![Performance profile]({name}/profile.png)\n\n"
        f"![Training curves]({name}/curves.png)\n\n"
        "## Training losses\n\nMeans over the seeds. In brackets, the learning rate or the name of"
        f" the best optimizer. – is not finite.\n\n{loss_table(table, 'train')}\n"
        f"## Evaluation losses\n\nOf the same runs.\n\n{loss_table(table, 'evaluation')}"
    )


def _about_rivals(table: Comparison) -> str:
    """What the page says of the rivals that were run; empty if there are none."""
    run = [
        spec
        for spec, entry in zip(optimizers.RIVALS, RIVALS_TUNED, strict=True)
        if entry in table.entries
    ]
    return "".join(
        f" {spec.name} has warm-up and the best of {len(rates)} learning rates, from {rates[0]:g}"
        f" to {rates[-1]:g}."
        for spec in run
        for rates in [table.settings.rates(spec)]
    )


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the optimizers in ascending order of the loss ratio, in columns for a terminal."""
    columns = {"optimizer": "", "ratio": "loss ratio", "rank": "rank"}
    columns |= {
        key: heading for key, heading in summary_columns(rows).items() if key.startswith("wins: ")
    }
    table = rich_table.Table(title="Loss ratios to Adam tuned on each task, best first")
    for heading in columns.values():
        table.add_column(heading, justify="right" if heading else "left")
    for row in displayed(rows):
        table.add_row(*(results.cell(row[key]) for key in columns))
    rich_console.Console().print(table)
