"""The tables and the page of `benchmarks.rl_vs_rnn`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import results_file

_TRAINING = {
    "network": "network",
    "learner": "learner",
    "rate": "rate",
    "score": "score at equal steps",
    "interval": "±",
    "score_at_equal_time": "score at equal time",
    "interval_at_equal_time": "± ",
    "env_steps": "steps of tasks",
    "seconds": "seconds",
}


def training_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What came of training, a row for each pair of network and learner."""
    return results_file.markdown_table([row for row in rows if "score" in row], _TRAINING)


def test_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What trained networks are worth elsewhere."""
    names = list(rows[0]["tests"])
    shown = [
        {"network": row["network"], "learner": row["learner"]}
        | {name: _with_interval(row, name) for name in names}
        for row in rows
    ]
    return results_file.markdown_table(
        shown, {"network": "network", "learner": "learner"} | {name: name for name in names}
    )


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    half = row.get("test_intervals", {}).get(name)
    value = f"{row['tests'][name]:.2f}"
    return value if half is None else f"{value} ± {half:.2f}"


def page(rows: Sequence[Mapping[str, Any]], command: str) -> str:
    """The page beside the JSON file."""
    return f"""# Reinforcement learning or a recurrent network?

Made by `{command}`.

Li & Malik learn an optimizer by reinforcement learning, Andrychowicz et al. a recurrent network by
backpropagation through time. Two things differ: the network and the learner. Here each network is
trained by each learner, on the same tasks, from the same observations, with the same actions (the
logarithm of every parameter's learning rate), by as many steps of tasks. Scores are the mean log of
final over initial loss: less is better, and a difference of 0.1 is a tenth of the loss. Intervals
are Student's, of the mean over seeds. Learning rates were chosen on a seed that is not shown.

## Training

Judged on families that are not trained on. Equal time is that of the quickest run.

{training_table(rows)}
![By steps and by time](rl_vs_rnn.png)

## Elsewhere, frozen

{test_table(rows)}"""
