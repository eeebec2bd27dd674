"""Ways to meta-train an agent: PPO with divided and shared reward, OpenAI-ES and persistent ES.

`python -m benchmarks.meta_learners` trains the same network on the same families by each method,
with the same number of environment steps and three seeds, and validates all of them on the same
held-out families. The learning rate and the exploration noise of each method are chosen on another
seed with half of the rounds. It takes an hour or two on one core. Runs are kept in
`benchmarks/results/meta_learners_runs`, so an interrupted benchmark resumes. `--quick` takes a few
minutes and only shows that everything runs.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys

import tyro

from benchmarks.common import results
from benchmarks.meta_learners import methods, report, runs


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      seeds: Runs of each method.
      rounds: Rounds of each run.
      quick: Two rounds with one seed and one setting, to see that it runs.
    """

    seeds: int = 3
    rounds: int = 160
    quick: bool = False


def main(arguments: Arguments) -> int:
    """Trains and reports; returns 0 if the claims hold."""
    episodes = 2 if arguments.quick else arguments.rounds
    seeds = range(1 if arguments.quick else arguments.seeds)
    folder = results.RESULTS / ("quick" if arguments.quick else "")
    runs_folder = folder / "meta_learners_runs"
    settings = {
        learner: learner.settings[0]
        if arguments.quick
        else runs.choose(learner, episodes // 2, runs_folder)
        for learner in methods.META_LEARNERS
    }
    finished = [
        runs.train(learner, setting, seed, episodes, runs_folder)
        for seed in seeds
        for learner, setting in settings.items()
    ]
    command = shlex.join(["python", "-m", "benchmarks.meta_learners", *sys.argv[1:]])
    claims = report.write(report.summarize(finished), command, folder)
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
