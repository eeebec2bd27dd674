"""Learning on: the shipped agent with `learn=True` beside the same one frozen, on unlike tasks.

`python -m benchmarks.online_learning` runs both where the shipped agent has least to go by: on
two-dimensional landscapes, when it was trained on networks and regressions, and on the suite's
cheap tasks with a tenth of the rates that it asks for, as if they needed rates ten times higher
than any it has seen. (On the suite as it is, `benchmarks.zero_tuning` compares the two.) It takes
some minutes; `--quick` shows what comes out in one.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import shlex
import sys
from typing import Any

from matplotlib.figure import Figure
import numpy as np
from rich import progress as rich_progress
import tyro

import alphaopt_jax as alphaopt
from alphaopt_jax import evaluation
from alphaopt_jax.plotting import _style as style
from alphaopt_jax.tasks.landscapes import LANDSCAPES, Landscape
from alphaopt_jax.tasks.suite import catalog
from alphaopt_jax.tasks.task import Family, Task
from benchmarks.common import results
from benchmarks.zero_tuning import statistics

HORIZONS = (200, 2000)
_TOO_SMALL = 0.1
_QUICK = ("bowl", "diabetes")
GROUPS = {"landscapes": "landscapes", "too_small": "rates ten times too small"}
_GROUP_COLORS = (style.COLORS["Adam"], style.COLORS["AlphaOpt"])


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      seeds: Runs of each.
      quick: One landscape, one task, two seeds.
    """

    seeds: int = 5
    quick: bool = False


@dataclasses.dataclass(frozen=True)
class Case:
    """A task that is unlike those that the shipped agent was trained on.

    Attributes:
      group: A key of `GROUPS`.
      name: Its name in the table.
      task: What is trained.
      multiplier: Of the rates that the agent chooses.
    """

    group: str
    name: str
    task: Task | Family
    multiplier: float = 1.0


def cases() -> list[Case]:
    """The landscapes that a local optimizer can solve, and the suite's cheap tasks."""
    landscapes = [each for each in LANDSCAPES.values() if each.kind != "multimodal"]
    cheap = [each for each in catalog.SUITE.values() if each.cheap]
    return [
        *(Case("landscapes", each.name, _descent(each)) for each in landscapes),
        *(Case("too_small", each.name, each.family, _TOO_SMALL) for each in cheap),
    ]


def _descent(landscape: Landscape) -> Task:
    """A landscape as a task: its loss is the height above the minimum."""

    def loss(point: Any, batch: Any = None) -> Any:
        del batch
        return landscape(point) - landscape.minimum

    return Task(landscape.name, lambda key: landscape.initial_point(), lambda key: None, loss, loss)


def run(case: Case, learn: bool, seeds: Sequence[int]) -> np.ndarray:
    """Trains on one case, with the agent frozen or learning, not told the number of steps.

    Landscapes start where they always do, and a seed decides the exploration alone; on other tasks
    it decides initial parameters and batches.

    Returns:
      Bounded logarithms of the losses, `float[H, S]`.
    """
    fixed_start = case.group == "landscapes"
    outcome = evaluation.train_rates(
        case.task,
        lambda seed: alphaopt.alphaopt(case.multiplier, learn=learn, seed=seed),
        tuple(seeds) if fixed_start else (0,),
        HORIZONS[-1],
        (0,) if fixed_start else seeds,
        evaluation.TrainingOptions(
            checkpoints=HORIZONS[:-1],
            num_batches=1 if fixed_start else 32,
            vectorize=not learn,
        ),
    )
    losses = outcome.train_losses.reshape(len(seeds), len(HORIZONS))
    initial_losses = np.broadcast_to(outcome.initial_losses, len(seeds))
    return np.array(
        [
            [statistics.log_loss(*pair) for pair in zip(at_horizon, initial_losses, strict=True)]
            for at_horizon in losses.T
        ]
    )


def case_rows(case: Case, frozen: np.ndarray, learning: np.ndarray) -> list[dict[str, Any]]:
    """One row for each number of steps; both arrays are `float[H, S]` logarithms."""
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
    """One row for each group: geometric mean of the ratios, and how often learning is better."""
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
    """What learning on is good for."""
    return [
        results.Claim(
            f"online_learning.{row['group']}",
            f"{GROUPS[row['group']]}: geometric mean of the ratio of the loss with learn=True to"
            " that of the same agent frozen",
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
    columns = {
        "group": "tasks",
        "ratio": "loss ratio, learning to frozen",
        "interval": "95 % interval",
        "better": "learning is better on",
    }
    return results.markdown_table(shown, columns)


def markdown(
    rows: Sequence[dict[str, Any]], summary: Sequence[dict[str, Any]], command: str
) -> str:
    """The page beside the JSON file."""
    columns = ("group", "task", "steps", "frozen", "learning", "ratio")
    table = results.markdown_table(
        [row | {"group": GROUPS[row["group"]]} for row in rows], {key: key for key in columns}
    )
    return (
        f"# Learning on\n\nMade by `{command}`.\n\nThe shipped agent with `learn=True` beside the"
        " same agent frozen, on tasks unlike those that it was trained on: two-dimensional"
        " landscapes (loss above the minimum), and the test suite's cheap tasks with"
        f" `learning_rate={_TOO_SMALL}`. Neither is told the number of steps. On landscapes a seed"
        " decides the exploration alone. Geometric means over"
        f" {len(rows[0]['log_learning'])} seeds; a loss counts as at least"
        f" {statistics.FLOOR:g} times the initial one; intervals by a bootstrap over tasks and"
        f" seeds.\n\n{group_table(summary)}\n![Ratios](online_learning.png)\n\n{table}"
    )


@style.styled
def ratios_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """How much lower or higher learning makes the loss of each task: dots, and bars over seeds."""
    cases = list(dict.fromkeys((row["group"], row["task"]) for row in rows))
    title = "Loss of the agent that learns on, as a multiple of the frozen one's"
    size = (4.2 * len(HORIZONS) + 1.6, 0.27 * len(rows) / len(HORIZONS) + 1.6)
    figure = style.new_figure(size, title)
    panels = figure.subplots(1, len(HORIZONS), sharey=True, squeeze=False)[0]
    for panel, horizon in zip(panels, HORIZONS, strict=True):
        panel.axvline(1.0, color=style.FAINT, lw=1.2)
        for color, (group, label) in zip(_GROUP_COLORS, GROUPS.items(), strict=True):
            mine = [row for row in rows if row["group"] == group and row["steps"] == horizon]
            places = [cases.index((group, row["task"])) for row in mine]
            ratios = np.array([np.exp(row["log_learning"] - row["log_frozen"]) for row in mine])
            if mine:
                low, high = ratios.min(axis=1), ratios.max(axis=1)
                panel.hlines(places, low, high, color=color, lw=1.6, alpha=0.45)
                panel.plot([row["ratio"] for row in mine], places, "o", color=color, label=label)
        panel.set(xscale="log", title=f"{horizon:,} steps")
        panel.set_yticks(range(len(cases)), [task for _, task in cases])
        panel.set_ylim(len(cases) - 0.4, -0.6)
        panel.tick_params(axis="y", length=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def main(arguments: Arguments) -> int:
    """Runs everything, prints the table, writes the files; returns 0 if the claims hold."""
    seeds = range(2 if arguments.quick else arguments.seeds)
    chosen = [case for case in cases() if not arguments.quick or case.name in _QUICK]
    rows: list[dict[str, Any]] = []
    for case in rich_progress.track(chosen, "Learning on"):
        frozen, learning = (run(case, learn, seeds) for learn in (False, True))
        rows += case_rows(case, frozen, learning)
        print(f"{case.name}: " + ", ".join(f"{row['ratio']:.3g}" for row in rows[-2:]), flush=True)
    summary = group_rows(rows)
    command = shlex.join(["python", "-m", "benchmarks.online_learning", *sys.argv[1:]])
    page = markdown(rows, summary, command)
    print(page)
    claims = [] if arguments.quick else make_claims(summary)
    folder = results.RESULTS / ("quick" if arguments.quick else "")
    results.write(
        "online_learning",
        rows=[*summary, *rows],
        claims=claims,
        seeds=list(seeds),
        command=command,
        folder=folder,
    )
    (folder / "online_learning.md").write_text(page)
    style.save_png(ratios_figure(rows), folder / "online_learning.png")
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
