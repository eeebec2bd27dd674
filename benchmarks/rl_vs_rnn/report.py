"""The rows, the claims and the page of `benchmarks.rl_vs_rnn`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common import intervals, results
from benchmarks.rl_vs_rnn.answer import Row, answer, by_cell, compare
from benchmarks.rl_vs_rnn.cells import BPTT, LSTM, POLICY, PPO
from benchmarks.rl_vs_rnn.runs import Measured, Section
from benchmarks.rl_vs_rnn.tasks import UNSEEN_TASKS

ADAM = "Adam, tuned"
_COLUMNS = {
    "network": "network",
    "learner": "learner",
    "rate": "learning rate",
    "start": "initial score",
    "score": "score at equal steps",
    "interval": "±",
    "score_at_equal_time": "score at equal time",
    "interval_at_equal_time": "± ",
    "env_steps": "environment steps",
    "seconds": "seconds",
}


def summarize(section: Section, measured: Measured) -> list[dict[str, Any]]:
    """One row per cell, and one for tuned Adam."""
    speeds = measured.seconds_per_step
    budget = min(run.env_steps[-1] * speeds[run.cell] for run in measured.runs)
    rows: list[dict[str, Any]] = []
    for cell in section.cells:
        mine, speed = [run for run in measured.runs if run.cell == cell.name], speeds[cell.name]
        at_steps = [run.best_score() for run in mine]
        at_time = [run.best_score(budget / speed) for run in mine]
        tested = {
            name: [measured.tested[run.cell, run.seed][name] for run in mine]
            for name in section.tests
        }
        rows.append(
            {
                "section": section.name,
                "network": cell.network,
                "learner": cell.learner,
                "rate": mine[0].rate,
                "start": float(np.mean([run.scores[0] for run in mine])),
                "score": float(np.mean(at_steps)),
                "interval": intervals.half_interval(at_steps),
                "score_at_equal_time": float(np.mean(at_time)),
                "interval_at_equal_time": intervals.half_interval(at_time),
                "env_steps": mine[0].env_steps[-1],
                "seconds": mine[0].env_steps[-1] * speed,
                "tests": {name: float(np.mean(each)) for name, each in tested.items()},
                "test_intervals": {
                    name: intervals.half_interval(each) for name, each in tested.items()
                },
                "test_scores": tested,
                "curves": [
                    {"seed": run.seed, "env_steps": run.env_steps, "scores": run.scores}
                    for run in mine
                ],
            }
        )
    adam = {"section": section.name, "network": "–", "learner": ADAM, "tests": dict(measured.adam)}
    return [*rows, adam]


def training_table(rows: Sequence[Row]) -> str:
    """Training results, one row per cell."""
    return results.markdown_table([row for row in rows if "score" in row], _COLUMNS)


def test_table(rows: Sequence[Row]) -> str:
    """Test results, one row per cell and one for tuned Adam."""
    names = list(rows[0]["tests"])
    shown = [
        {"network": row["network"], "learner": row["learner"]}
        | {name: _with_interval(row, name) for name in names}
        for row in rows
    ]
    return results.markdown_table(
        shown, {"network": "network", "learner": "learner"} | {name: name for name in names}
    )


def _with_interval(row: Row, name: str) -> str:
    half = row.get("test_intervals", {}).get(name)
    value = f"{row['tests'][name]:.2f}"
    return value if half is None else f"{value} ± {half:.2f}"


def make_claims(rows: Sequence[Row]) -> list[results.Claim]:
    """The two common beliefs, as measured here: recurrent networks win, direct gradients win."""
    found = by_cell(rows, "loss")
    claim = results.Claim
    return [
        claim(
            "rl_vs_rnn.network",
            f"unseen tasks: ratio of the final loss of the {LSTM} to that of {POLICY}, both trained"
            f" by {BPTT}, upper end of the 95 % interval (does the recurrent network win?)",
            compare(found[LSTM, BPTT], found[POLICY, BPTT], UNSEEN_TASKS).high,
            "< 1",
        ),
        claim(
            "rl_vs_rnn.learner",
            f"unseen tasks: ratio of the final loss of {POLICY} trained by {BPTT} to that trained"
            f" by {PPO}, upper end of the 95 % interval (do direct gradients win?)",
            compare(found[POLICY, BPTT], found[POLICY, PPO], UNSEEN_TASKS).high,
            "< 1",
        ),
    ]


def page(rows: Sequence[Row], command: str) -> str:
    """The page beside the JSON file."""
    by_loss = [row for row in rows if row["section"] == "loss"]
    by_errors = [row for row in rows if row["section"] == "errors"]
    return f"""# Reinforcement learning or a recurrent network?

Made by `{command}`.

Li & Malik learn an optimizer by reinforcement learning, Andrychowicz et al. a recurrent network by
backpropagation through time; the recurrent network is said to win because it uses direct gradients.
The two differ in both network and learner. Here each network is trained by each learner, on the
same tasks, with the same observations and actions (the log learning rate of every parameter) and
the same number of environment steps. The last network is the LSTM as published, with its own inputs
and steps.

## The answer

{answer(rows)}
## Training

Scores are the mean log of final over initial loss on validation families, which are not among the
training families. Lower is better; a difference of 0.1 is 10 % of the loss. The network with the
best of twenty validation scores is tested. Intervals are 95 % intervals (Student) of the mean over
seeds. Learning rates are chosen on another seed. Equal time is the time that the fastest cell needs
for all its steps; seconds are of training only, without compilation, measured in turns.

{training_table(by_loss)}
![By steps and by time](rl_vs_rnn.png)

## Tests

Scores of the trained networks, frozen.

{test_table(by_loss)}
## Errors as the reward

Classifiers minimize the cross-entropy; the optimizer is scored by the percentage of wrongly
classified test examples after 100 steps. PPO and evolution maximize its decrease. It has no
gradient, so BPTT minimizes the cross-entropy. Percentages are of a few thousand examples, so two
runs may have the same.

{training_table(by_errors)}
{test_table(by_errors)}"""
