"""Omniglot: few-shot learning of new characters with a pretrained optimizer.

`python -m benchmarks.omniglot` meta-trains AlphaOpt and the baselines on background alphabets and
meta-tests all of them, frozen, on evaluation alphabets. On two cores the first protocol takes hours
and the others take days; on a GPU they take minutes. Results are stored in
`benchmarks/results/omniglot_runs`, so that an interrupted run continues where it stopped. `--quick`
takes minutes: fewer episodes and steps, and synthetic characters on a machine without Omniglot.
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
from benchmarks.omniglot import learning, optimizers, plots, report, runs


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Size of the comparison.

    Attributes:
      protocols: Names of the protocols; by default all.
      quick: Only the first protocol, with few episodes and steps.
    """

    protocols: tuple[str, ...] = tuple(learning.PLANS)
    quick: bool = False


def main(arguments: Arguments) -> int:
    """Meta-trains, meta-tests and reports; returns 0 if the claims hold."""
    plans = learning.quick_plans() if arguments.quick else dict(learning.PLANS)
    folder = results.RESULTS / ("quick" if arguments.quick else "")
    data = characters.load_omniglot()
    found: dict[str, list[runs.Run]] = {}
    histories: dict[str, dict[str, Any]] = {}
    runs_folder = folder / "omniglot_runs"
    for name in [name for name in plans if name in arguments.protocols]:
        specs, histories[name] = optimizers.all_optimizers(plans[name], data, runs_folder)
        with rich_progress.Progress() as progress:
            bar = progress.add_task("testing", total=len(specs))

            def advance(note: str, progress: Any = progress, bar: Any = bar) -> None:
                progress.update(bar, advance=1, description=note)

            found[name] = runs.run_all(specs, plans[name], data, runs_folder / "tests", advance)
    rows = report.summarize(found, plans)
    claims = [] if arguments.quick else report.make_claims(rows)
    command = shlex.join(["python", "-m", "benchmarks.omniglot", *sys.argv[1:]])
    page = report.page(rows, plans, data.name, command)
    print(page)
    results.write(
        "omniglot",
        rows=[*rows, {"part": "learning", "source": data.name, "histories": histories}],
        claims=claims,
        seeds=[runs.TEST_KEY],
        command=command,
        folder=folder,
    )
    (folder / "omniglot.md").write_text(page)
    plots.write(found, histories, plans, folder)
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
