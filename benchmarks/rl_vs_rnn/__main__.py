"""Reinforcement learning or a recurrent network?

The two papers that learn optimizers differ in two things at once: the network (feedforward, or an
LSTM) and the learner (reinforcement learning, or backpropagation through time).
`python -m benchmarks.rl_vs_rnn` separates them: it trains both networks by each of three learners,
on the same tasks with the same observations, actions, environment steps and three seeds, and tests
them frozen on held-out tasks. It takes hours on two cores. Finished runs are kept in
`benchmarks/results/rl_vs_rnn_runs`, so an interrupted benchmark resumes; without that folder
everything is measured again. `--quick` takes a few minutes and only shows that everything runs.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from typing import Any

import tyro

from benchmarks.common import results
from benchmarks.rl_vs_rnn import plots, report, runs


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      seeds: Runs of each network and learner.
      env_steps: Environment steps of each run by the loss, over all tasks, in millions.
      error_env_steps: Environment steps of each run by errors, in millions.
      quick: Two rounds with one seed and one learning rate, to see that it runs.
    """

    seeds: int = 3
    env_steps: float = 0.25
    error_env_steps: float = 0.125
    quick: bool = False


def main(arguments: Arguments) -> int:
    """Runs and reports."""
    extent = runs.Extent(
        range(arguments.seeds), 1e6 * arguments.env_steps, 1e6 * arguments.error_env_steps
    )
    if arguments.quick:
        extent = runs.Extent(range(1), 1e4, 1e4, quick=True)
    folder = results.RESULTS / ("quick" if arguments.quick else "")
    rates: dict[str, float] = {}  # Chosen by the loss, and used for errors too.
    rows: list[dict[str, Any]] = []
    for section in runs.sections(extent):
        runs_folder = folder / "rl_vs_rnn_runs" / section.name
        rows += report.summarize(section, runs.measure(section, extent, rates, runs_folder))
    command = shlex.join(["python", "-m", "benchmarks.rl_vs_rnn", *sys.argv[1:]])
    page = report.page(rows, command)
    print(page)
    results.write(
        "rl_vs_rnn",
        rows=rows,
        claims=[] if arguments.quick else report.make_claims(rows),
        seeds=extent.seeds,
        command=command,
        folder=folder,
    )
    (folder / "rl_vs_rnn.md").write_text(page)
    plots.write(rows, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
