"""The rows, the claims and the page of `benchmarks.meta_learners`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import intervals, results
from benchmarks.meta_learners import plots
from benchmarks.meta_learners.methods import (
    CONFIG,
    DIVIDED,
    EVOLUTION,
    PERSISTENT,
    RATES,
    SHARED,
    Setting,
)
from benchmarks.meta_learners.runs import TRAINED, VALIDATED, Run

COLUMNS = {
    "method": "method",
    "setting": "learning rate, noise",
    "start": "initial score",
    "score": "final score",
    "interval": "±",
    "score_at_equal_time": "score at equal time",
    "interval_at_equal_time": "± ",
    "env_steps": "environment steps",
    "seconds": "seconds",
}


def summarize(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row per method: scores after all steps, and after the time of the fastest run."""
    budget = min(run.seconds[-1] for run in runs)
    rows = []
    for name in dict.fromkeys(run.method for run in runs):
        mine = [run for run in runs if run.method == name]
        final = np.array([run.scores[-1] for run in mine])
        at_time = np.array([np.interp(budget, run.seconds, run.scores) for run in mine])
        rows.append(
            {
                "method": name,
                "setting": _describe(mine[0].setting),
                "start": float(np.mean([run.scores[0] for run in mine])),
                "score": float(final.mean()),
                "interval": intervals.half_interval(final),
                "score_at_equal_time": float(at_time.mean()),
                "interval_at_equal_time": intervals.half_interval(at_time),
                "env_steps": float(np.mean([run.env_steps[-1] for run in mine])),
                "seconds": float(np.mean([run.seconds[-1] for run in mine])),
                "curves": [
                    {
                        "seed": run.seed,
                        "env_steps": run.env_steps,
                        "seconds": run.seconds,
                        "scores": run.scores,
                    }
                    for run in mine
                ],
            }
        )
    return rows


def _describe(setting: Setting) -> str:
    at_edge = setting.learning_rate in (min(RATES), max(RATES))
    return f"{setting.learning_rate:g}{' (edge)' if at_edge else ''}, {setting.noise_std:g}"


def make_claims(rows: Sequence[dict[str, Any]]) -> list[results.Claim]:
    """PPO with divided reward against each other method, by differences paired by seed."""
    scores = {
        row["method"]: np.array([each["scores"][-1] for each in row["curves"]]) for row in rows
    }
    rivals = {"shared": SHARED, "openai_es": EVOLUTION, "persistent_es": PERSISTENT}
    claims = []
    for key, rival in rivals.items():
        difference = scores[DIVIDED] - scores[rival]
        claims.append(
            results.Claim(
                f"meta_learners.divided_to_{key}",
                f"final score of {DIVIDED}, minus that of {rival}: upper end of the 95 % interval",
                float(difference.mean() + (intervals.half_interval(difference) or 0.0)),
                "< 0",
            )
        )
    return claims


def page(rows: Sequence[dict[str, Any]], command: str) -> str:
    """The page beside the JSON file."""
    return (
        f"# Ways to train an agent\n\nMade by `{command}`.\n\nThe same network, tasks and"
        f" environment: trained on {', '.join(TRAINED)} with horizons of {CONFIG.min_horizon} to"
        f" {CONFIG.max_horizon} steps, validated frozen on {', '.join(VALIDATED)} with 200 steps,"
        f" {len(rows[0]['curves'])} seeds. The score is the mean log of final over initial loss;"
        " lower is better. Intervals are 95 % intervals (Student) of the mean over seeds. Equal"
        " time is the time of the fastest run, without compilation and validation.\n\n"
        "With divided reward, each parameter is rewarded with its own part of the decrease of the"
        " log loss, and the leaves as a team with the whole decrease; the pretrained agent is"
        " trained this way. With shared reward, all are rewarded with the whole decrease. OpenAI-ES"
        " learns at the end of each episode, persistent ES after each quarter of an episode. Each"
        f" method uses the best of {len(RATES)} learning rates of the agent's Adam, and evolution"
        " also the best of two standard deviations of the noise on the agent's parameters. They"
        " are chosen on another seed with half of the rounds, by the same validation; (edge) marks"
        " a rate at the edge of the grid."
        f"\n\n{results.markdown_table(rows, COLUMNS)}\n"
        "![By steps](meta_learners_env_steps.png)\n\n![By time](meta_learners_seconds.png)\n"
    )


def write(rows: Sequence[dict[str, Any]], command: str, folder: Path) -> Sequence[results.Claim]:
    """Prints the table, writes the files and the pictures; returns the claims."""
    print(results.markdown_table(rows, COLUMNS))
    seeds = sorted({curve["seed"] for row in rows for curve in row["curves"]})
    claims = make_claims(rows) if len(seeds) > 1 else []
    results.write(
        "meta_learners", rows=rows, claims=claims, seeds=seeds, command=command, folder=folder
    )
    (folder / "meta_learners.md").write_text(page(rows, command))
    plots.write(rows, folder)
    return claims
