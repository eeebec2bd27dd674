"""Landscapes: does a fresh agent find the minimum, and does it get better with practice?

`python -m benchmarks.landscapes` runs, on every landscape and with several seeds, a fresh agent
that is told nothing but the loss; then repeated episodes of that agent, with and without learning;
and SGD, momentum and Adam, at their usual default and at their best of a grid of rates. Writes
`results/landscapes.json`, `.md` and the pictures.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import sys
from typing import Any

import numpy as np
import rich.console
import rich.progress
import rich.table
import tyro

import alphaopt_jax as alphaopt
from alphaopt_jax.tasks.landscapes import LANDSCAPES, Landscape
from benchmarks.common import results
from benchmarks.landscapes import plots, runs

_LAST = 5  # Episodes at the end whose mean counts as what the agent has learned.


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      episodes: Episodes in which the same agent meets a landscape again.
      steps: Steps of an episode.
      seeds: Independent agents, numbered from 0.
      whole_episodes: Whether repeated episodes go on after the target is reached. By default they
        end there, as episodes do in reinforcement learning; that only ends them, and tells
        the agent nothing.
      only: Names of the landscapes to run; all by default.
      quick: A short run that shows that everything works. What it writes, and what a run with
        `only` writes, goes to `results/quick` and makes no claims.
    """

    episodes: int = 20
    steps: int = 2000
    seeds: int = 5
    whole_episodes: bool = False
    only: tuple[str, ...] = ()
    quick: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Everything measured on one landscape.

    Attributes:
      landscape: Which.
      fresh: One whole episode of fresh agents that learn; leading axis: seed.
      steps_first: `int[S]`, steps to the target in it.
      steps_on: `int[S, E]`, steps to the target in every episode, learning on.
      off: One episode of agents that do not learn; leading axis: seed.
      steps_off: `int[S, E]`, the same, learning off.
      baselines: From a baseline's name to its episodes; leading axis: learning rate.
      practice: For the first seed, the points visited until the target, episode by episode.
      agent: The first seed's agent after all its episodes.
    """

    landscape: Landscape
    fresh: runs.Episode
    steps_first: np.ndarray
    steps_on: np.ndarray
    off: runs.Episode
    steps_off: np.ndarray
    baselines: dict[str, runs.Episode]
    practice: list[np.ndarray]
    agent: alphaopt.Agent


@dataclasses.dataclass(frozen=True)
class Runners:
    """Compiled programs: one whole episode, one that ends at the target, one that never learns."""

    whole: runs.AgentRunner
    practice: runs.AgentRunner
    frozen: runs.AgentRunner


def measure(
    landscape: Landscape, arguments: Arguments, runners: Runners, advance: Callable[[], None]
) -> Outcome:
    """Runs everything on one landscape; calls `advance()` after every episode."""
    seeds = list(range(arguments.seeds))
    _, fresh = runners.whole.run(landscape, runners.whole.init(landscape, seeds))
    steps_on, practice = [], []
    states = runners.practice.init(landscape, seeds)
    for _ in range(arguments.episodes):
        states, episode = runners.practice.run(landscape, runners.practice.new_episode(states))
        steps_on.append(runs.steps_to_target(landscape, episode.losses))
        practice.append(episode.points[0, : steps_on[-1][0] + 1])
        advance()
    # Without learning nothing is random and nothing is kept: one episode stands for them all.
    _, off = runners.frozen.run(landscape, runners.frozen.init(landscape, seeds))
    steps_off = runs.steps_to_target(landscape, off.losses)
    return Outcome(
        landscape=landscape,
        fresh=fresh,
        steps_first=runs.steps_to_target(landscape, fresh.losses),
        steps_on=np.stack(steps_on, axis=1),
        off=off,
        steps_off=np.repeat(steps_off[:, None], arguments.episodes, axis=1),
        baselines={
            name: runs.run_baselines(landscape, name, arguments.steps) for name in runs.BASELINES
        },
        practice=practice,
        agent=alphaopt.agent_from_state(runs.first(states)),
    )


def best_rate(landscape: Landscape, episodes: runs.Episode) -> int:
    """Which rate is best: the first to arrive among those that end there, else the lowest."""
    final = runs.gaps(landscape, episodes.losses[:, -1])
    steps = runs.steps_to_target(landscape, episodes.losses)
    stays = final <= runs.TARGET
    return int(np.argmin(np.where(stays, steps, np.inf) if stays.any() else final))


def summarise(outcome: Outcome) -> dict[str, Any]:
    """The row of the table; steps that did not lead to the target count as the whole episode."""
    landscape = outcome.landscape
    gaps = runs.gaps(landscape, outcome.fresh.losses)
    row = {
        "landscape": landscape.name,
        "kind": landscape.kind,
        "gap_mean": gaps[:, -1].mean(),
        "gap_worst": gaps[:, -1].max(),
        "gap_best_so_far_worst": gaps.min(axis=1).max(),
        "gap_off_worst": runs.gaps(landscape, outcome.off.losses)[:, -1].max(),
        "steps_first": outcome.steps_on[:, 0].mean(),
        "steps_last": outcome.steps_on[:, -_LAST:].mean(),
        "steps_off": outcome.steps_off.mean(),
        "steps_by_seed_and_episode": outcome.steps_on,
        "steps_off_by_seed": outcome.steps_off[:, 0],
    }
    row["reached"] = bool(row["gap_best_so_far_worst"] <= runs.TARGET)
    row["stays"] = bool(row["gap_worst"] <= runs.TARGET)
    row["learning_helps"] = bool(
        row["steps_last"] < row["steps_off"] and row["steps_last"] < row["steps_first"]
    )
    for name, episodes in outcome.baselines.items():
        _, default = runs.BASELINES[name]
        final = runs.gaps(landscape, episodes.losses[:, -1])
        steps = runs.steps_to_target(landscape, episodes.losses)
        for label, index in (
            ("default", runs.RATES.index(default)),
            ("tuned", best_rate(landscape, episodes)),
        ):
            key = f"{name.lower()}_{label}"
            row[f"{key}_rate"] = runs.RATES[index]
            row[f"{key}_gap"] = final[index]
            row[f"{key}_steps"] = steps[index]
    return row


def make_claims(rows: list[dict[str, Any]]) -> list[results.Claim]:
    """The promises, over the unimodal and few-minima landscapes."""
    counted = [row for row in rows if row["kind"] in ("unimodal", "few minima")]
    reached, stays = (sum(row[key] for row in counted) for key in ("reached", "stays"))
    helped = sum(row["learning_helps"] for row in counted)
    count = len(counted)
    return [
        results.Claim(
            "landscapes.reached",
            f"of the {count} unimodal and few-minima landscapes, those on which fresh agents of all"
            f" seeds, given no rate, come within {runs.TARGET} of the minimum",
            reached,
            f">= {count}",
        ),
        results.Claim(
            "landscapes.stays",
            "of the same, those on which they are still there at the last step",
            stays,
            f">= {count}",
        ),
        results.Claim(
            "landscapes.learning",
            f"of the same {count}, those on which the steps needed in the last {_LAST} episodes are"
            " fewer than in the first one and than without learning",
            helped,
            f">= {-(-count // 2)}",
        ),
    ]


_COLUMNS = {
    "landscape": "landscape",
    "kind": "kind",
    "gap_mean": "AlphaOpt, mean",
    "gap_worst": "worst seed",
    "gap_off_worst": "learning off",
    "adam_default_gap": "Adam 1e-3",
    "adam_tuned_gap": "Adam, best rate",
    "momentum_tuned_gap": "momentum, best rate",
    "sgd_tuned_gap": "SGD, best rate",
}
_STEP_COLUMNS = {
    "landscape": "landscape",
    "steps_first": "first episode",
    "steps_last": f"mean of the last {_LAST}",
    "steps_off": "learning off",
    "learning_helps": "learning helps",
    "adam_default_steps": "Adam 1e-3",
    "adam_tuned_steps": "Adam, best rate",
    "adam_tuned_rate": "that rate",
}


def markdown(rows: list[dict[str, Any]], arguments: Arguments) -> str:
    """The page beside the JSON file."""
    first, second = (results.markdown_table(rows, columns) for columns in (_COLUMNS, _STEP_COLUMNS))
    return (
        "# Landscapes\n\nMade by `python -m benchmarks.landscapes`.\n\n"
        f"Loss above the global minimum after {arguments.steps} steps, {arguments.seeds} seeds;"
        " AlphaOpt is a fresh agent that is given no rate, the others get their best of"
        f" {len(runs.RATES)} rates on each landscape. – means not finite.\n\n{first}\n"
        f"Steps to come within {runs.TARGET} of the minimum, the same agent meeting the"
        f" landscape {arguments.episodes} times; {arguments.steps} where it did not.\n\n{second}"
    )


def main(arguments: Arguments) -> int:
    """Runs everything, prints the table, writes the files; returns 0 if the claims hold."""
    if arguments.quick:
        arguments = dataclasses.replace(arguments, episodes=3, steps=300, seeds=1)
    complete = not arguments.quick and not arguments.only
    chosen = [LANDSCAPES[name] for name in arguments.only or LANDSCAPES]
    runner = functools.partial(runs.AgentRunner, num_steps=arguments.steps)
    runners = Runners(
        whole=runner(learn=True, stop_at_target=False),
        practice=runner(learn=True, stop_at_target=not arguments.whole_episodes),
        frozen=runner(learn=False, stop_at_target=False),
    )
    outcomes = []
    with rich.progress.Progress(
        *rich.progress.Progress.get_default_columns(), rich.progress.TimeElapsedColumn()
    ) as progress:
        task = progress.add_task("", total=len(chosen) * arguments.episodes)
        for landscape in chosen:
            progress.update(task, description=landscape.title)
            outcomes.append(measure(landscape, arguments, runners, lambda: progress.advance(task)))
    rows = [summarise(outcome) for outcome in outcomes]
    _print_table(rows)
    claims = make_claims(rows)
    folder = results.RESULTS if complete else results.RESULTS / "quick"
    results.write(
        "landscapes",
        rows=rows,
        claims=claims if complete else [],
        seeds=range(arguments.seeds),
        command=" ".join(["python -m benchmarks.landscapes", *sys.argv[1:]]),
        folder=folder,
    )
    (folder / "landscapes.md").write_text(markdown(rows, arguments))
    plots.write(outcomes, rows, arguments.steps, folder / "landscapes")
    print(f"Wrote {folder}/landscapes.json, .md and pictures.")
    return 0 if all(claim.holds for claim in claims) or not complete else 1


def _print_table(rows: list[dict[str, Any]]) -> None:
    table = rich.table.Table(title="Loss above the minimum at the end, and steps to come there")
    columns = {
        "landscape": "",
        "gap_worst": "AlphaOpt",
        "adam_tuned_gap": "tuned Adam",
        "steps_first": "first",
        "steps_last": "last",
        "steps_off": "never learning",
        "adam_tuned_steps": "tuned Adam",
    }
    for heading in columns.values():
        table.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        table.add_row(*(results.cell(row.get(key)) for key in columns))
    rich.console.Console().print(table)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
