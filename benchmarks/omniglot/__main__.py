"""Omniglot: how much a pre-trained optimizer helps to learn new characters from few drawings.

`python -m benchmarks.omniglot` meta-trains AlphaOpt and its rivals on background alphabets, and
tests all of them on evaluation alphabets, frozen. On two cores the first protocol takes hours, and
the others days; on a GPU they take minutes. What is learned is kept in
`benchmarks/results/omniglot_runs`, so that it goes on where it was stopped. `--quick` is a matter
of minutes: less of everything, with characters that a program draws where Omniglot is not on this
machine.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from typing import Any

from rich import progress as rich_progress
import tyro

from alphaopt_jax.tasks.omniglot import characters
from benchmarks.common import results
from benchmarks.omniglot import learning, optimizers, plots, report


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      protocols: Names of the protocols; all of them by default.
      quick: Little of the first protocol, to see that it runs.
    """

    protocols: tuple[str, ...] = tuple(learning.PLANS)
    quick: bool = False


def quick_plans() -> dict[str, learning.Plan]:
    """The main plan, with little of everything."""
    name, plan = next(iter(learning.PLANS.items()))
    ours = dataclasses.replace(
        plan.ours,
        num_steps=20,
        width=8,
        initialization_episodes=20,
        initialization_steps=3,
        rounds=2,
        validation_episodes=4,
    )
    alone = ours.without_initialization()
    return {name: dataclasses.replace(plan, ours=ours, alone=alone, test_episodes=6, longer=40)}


def main(arguments: Arguments) -> int:
    """Meta-trains, tests and reports; returns 0 if the claims hold."""
    plans = quick_plans() if arguments.quick else dict(learning.PLANS)
    folder = results.RESULTS / ("quick" if arguments.quick else "")
    data = characters.load_omniglot()
    tested: dict[str, list[optimizers.Tested]] = {}
    histories: dict[str, dict[str, Any]] = {}
    runs = folder / "omniglot_runs"
    for name in [name for name in plans if name in arguments.protocols]:
        found, histories[name] = optimizers.contenders(plans[name], data, runs)
        with rich_progress.Progress() as progress:
            bar = progress.add_task("testing", total=len(found))

            def tell(note: str, progress: Any = progress, bar: Any = bar) -> None:
                progress.update(bar, advance=1, description=note)

            tested[name] = optimizers.test(found, plans[name], data, runs / "tests", tell)
    rows = report.summarize(tested, plans)
    claims = [] if arguments.quick else report.make_claims(rows)
    command = shlex.join(["python", "-m", "benchmarks.omniglot", *sys.argv[1:]])
    page = report.page(rows, plans, data.name, command)
    print(page)
    results.write(
        "omniglot",
        rows=[*rows, {"part": "learning", "source": data.name, "histories": histories}],
        claims=claims,
        seeds=[optimizers.TEST_KEY],
        command=command,
        folder=folder,
    )
    (folder / "omniglot.md").write_text(page)
    plots.write(tested, histories, plans, folder)
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
