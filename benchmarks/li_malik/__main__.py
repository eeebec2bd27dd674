"""The optimizers that Li & Malik learn by guided policy search, on held-out problems.

`python -m benchmarks.li_malik` measures the pretrained ones. `alphaopt train-baseline
li-malik-logistic runs/li-malik-logistic` trains one of them again, as do `li-malik-robust`,
`li-malik-tiny-net`, `li-malik-2017` and its rival `l2l-projected-mnist`; `--runs runs` measures
these. `--quick` runs a little of everything.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
import shlex
import sys

from rich import progress as rich_progress
import tyro

from benchmarks.common import results
from benchmarks.li_malik import optimizers, paper_2016, paper_2017, plots, report

_POLICY_2017, _LSTM = "li-malik-2017", "l2l-projected-mnist"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      runs: Folder with one folder per learned optimizer; by default the pretrained ones are
        measured.
      starts: Runs on each net.
      quick: A few functions, runs and constants.
    """

    runs: Path | None = None
    starts: int = 5
    quick: bool = False

    def policy(self, name: str) -> Path | str:
        """Path of a learned optimizer, or its name if it is a pretrained one."""
        return name if self.runs is None else self.runs / name / f"{name}.safetensors"


def main(arguments: Arguments) -> int:
    """Runs and reports; returns 0 if the claims hold."""
    folder = results.RESULTS / ("quick" if arguments.quick else "")
    count, extent = None, paper_2017.Extent(arguments.starts)
    if arguments.quick:
        count, extent = 6, paper_2017.Extent(2, paper_2017.SETTINGS[:1], slice(4, 6))
    total = (
        len(paper_2016.PROBLEMS) * (1 + len(optimizers.DETERMINISTIC))
        + len(optimizers.STOCHASTIC)
        + len(extent.settings) * (1 + len(paper_2017.TRANSFERS))
    )
    with rich_progress.Progress() as progress:
        bar = progress.add_task("measuring", total=total)

        def on_progress(note: str) -> None:
            progress.update(bar, advance=1, description=note)

        curves = [
            paper_2016.measure(problem, arguments.policy(problem.policy), on_progress, count)
            for problem in paper_2016.PROBLEMS
        ]
        transfers, constants = paper_2017.measure(
            arguments.policy(_POLICY_2017), arguments.policy(_LSTM), extent, on_progress
        )
    early, nets = report.summarize_2016(curves), report.summarize_2017(transfers)
    claims = [*report.claims_2016(early), *report.claims_2017(nets)]
    command = shlex.join(["python", "-m", "benchmarks.li_malik", *sys.argv[1:]])
    page = report.page([*early, *nets], command)
    print(page)
    results.write(
        "li_malik",
        rows=[*early, *nets, {"part": "2017, chosen", "constants": constants}],
        claims=[] if arguments.quick else claims,
        seeds=[paper_2016.TEST_KEY, paper_2017.TEST_KEY],
        command=command,
        folder=folder,
    )
    (folder / "li_malik.md").write_text(page)
    plots.write(curves, transfers, folder)
    return 0 if arguments.quick or all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
