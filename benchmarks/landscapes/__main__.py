"""Two-dimensional landscapes: does an agent reach the minimum, and improve with practice?

`python -m benchmarks.landscapes` runs on every landscape, with several seeds: AlphaOpt from
scratch, repeated episodes of it with and without learning, repeated episodes of the pretrained
agent, which learns on, and SGD, momentum and Adam at their default learning rate and at the best of
a grid. It writes `results/landscapes.json`, `.md` and the pictures.
"""

from __future__ import annotations

import dataclasses
import sys

from rich import progress as rich_progress
import tyro

from alphaopt_jax.tasks.landscapes import LANDSCAPES
from benchmarks.common import results
from benchmarks.landscapes import plots, report, runs


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      episodes: Episodes in which an agent repeats a landscape.
      steps: Steps in an episode.
      seeds: Independent agents, numbered from 0.
      whole_episodes: Whether repeated episodes continue after the target is reached. By default
        they end there; the agent does not observe that.
      only: Names of the landscapes to run; all by default.
      quick: A short run to see that everything works. It makes no claims and writes to
        `results/quick`, as does a run with `only`.
    """

    episodes: int = 20
    steps: int = 2000
    seeds: int = 5
    whole_episodes: bool = False
    only: tuple[str, ...] = ()
    quick: bool = False


def main(arguments: Arguments) -> int:
    """Runs and reports; returns 0 if the claims hold."""
    if arguments.quick:
        arguments = dataclasses.replace(arguments, episodes=3, steps=300, seeds=1)
    complete = not arguments.quick and not arguments.only
    chosen = [LANDSCAPES[name] for name in arguments.only or LANDSCAPES]
    runners = runs.Runners(arguments.steps, whole_episodes=arguments.whole_episodes)
    seeds = list(range(arguments.seeds))
    outcomes = []
    with rich_progress.Progress(
        *rich_progress.Progress.get_default_columns(), rich_progress.TimeElapsedColumn()
    ) as progress:
        bar = progress.add_task("", total=2 * len(chosen) * arguments.episodes)
        for landscape in chosen:
            progress.update(bar, description=landscape.title)
            outcomes.append(
                runs.measure(
                    landscape, runners, seeds, arguments.episodes, lambda: progress.advance(bar)
                )
            )
    rows = [report.summarize(outcome) for outcome in outcomes]
    report.print_table(rows)
    claims = report.make_claims(rows)
    folder = results.RESULTS if complete else results.RESULTS / "quick"
    results.write(
        "landscapes",
        rows=rows,
        claims=claims if complete else [],
        seeds=seeds,
        command=" ".join(["python -m benchmarks.landscapes", *sys.argv[1:]]),
        folder=folder,
    )
    (folder / "landscapes.md").write_text(report.page(rows, arguments.steps))
    plots.write(outcomes, rows, folder / "landscapes")
    print(f"Wrote {folder}/landscapes.json, .md and pictures.")
    return 0 if all(claim.holds for claim in claims) or not complete else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
