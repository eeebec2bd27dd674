"""The optimizers that Li & Malik learn by guided policy search, on what they were not trained on.

`python -m benchmarks.li_malik` measures the shipped ones. `alphaopt train-baseline
li-malik-logistic runs/li-malik-logistic` trains one of them again, and likewise `li-malik-robust`,
`li-malik-tiny-net`, `li-malik-2017` and its rival `l2l-projected-mnist`; `--runs runs` measures
these. `--quick` measures a little, to see that it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path
import shlex
import sys
from typing import Any

from rich import progress as rich_progress
import tyro

from benchmarks.common import results
from benchmarks.li_malik import optimizers, plots
from benchmarks.li_malik import paper_2016 as full_vector
from benchmarks.li_malik import paper_2017 as coordinatewise

_POLICY_2017, _LSTM = "li-malik-2017", "l2l-projected-mnist"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      runs: A folder with a folder for each learned optimizer; without it the shipped ones.
      starts: Runs on each net.
      quick: A few functions, runs and constants, to see that it runs.
    """

    runs: Path | None = None
    starts: int = 5
    quick: bool = False

    def policy(self, name: str) -> Path | str:
        """The learned optimizer of that name, or where it is."""
        return name if self.runs is None else self.runs / name / f"{name}.safetensors"


def markdown(rows: Sequence[Mapping[str, Any]], command: str) -> str:
    """The page beside the JSON file."""
    early = [row for row in rows if row["part"] == "2016"]
    nets = [row for row in rows if row["part"] == "2017"]
    words = "\n".join(f"- {problem.name}: {problem.paper}." for problem in full_vector.PROBLEMS)
    return f"""# Optimizers learned by guided policy search

Made by `{command}`.

## 2016: whole vectors

One policy for each family of functions, trained for {full_vector.HORIZON} steps. The *margin of
victory* is the rival's objective less the learned optimizer's, its mean over test functions with a
95 % interval: above 0 the learned optimizer is ahead. Rivals have the constants that are best on as
many training functions; line searches look at the objective many times in a step. What the paper's
curves show:

{words}

{results.markdown_table(early, full_vector.COLUMNS)}
![Objectives and margins](li_malik_2016.png)

## 2017: nets, coordinate by coordinate

One policy, trained on one net and one data set (MNIST at 48-48, batch 64) for
{coordinatewise.HORIZON} steps; all rivals are tuned there as well, and nowhere else. Figures are
the mean objective over {coordinatewise.HORIZON} steps, with 95 % intervals over starts.

{results.markdown_table(nets, coordinatewise.COLUMNS)}
![Objectives](li_malik_2017.png)
"""


def main(arguments: Arguments) -> int:
    """Measures everything and reports; returns 0 if the claims hold."""
    folder = results.RESULTS / ("quick" if arguments.quick else "")
    count, grid = (6, slice(4, 6)) if arguments.quick else (None, slice(None))
    settings = coordinatewise.SETTINGS[: 1 if arguments.quick else None]
    starts = 2 if arguments.quick else arguments.starts
    total = (
        len(full_vector.PROBLEMS) * (1 + len(optimizers.DETERMINISTIC))
        + len(optimizers.STOCHASTIC)
        + len(settings) * (1 + len(coordinatewise.TRANSFERS))
    )
    with rich_progress.Progress() as progress:
        bar = progress.add_task("measuring", total=total)

        def tell(note: str) -> None:
            progress.update(bar, advance=1, description=note)

        curves = [
            full_vector.measure(problem, arguments.policy(problem.policy), tell, count)
            for problem in full_vector.PROBLEMS
        ]
        learned = arguments.policy(_POLICY_2017), arguments.policy(_LSTM)
        transfers, constants = coordinatewise.measure(*learned, starts, settings, tell, grid)
    early, nets = full_vector.summarize(curves), coordinatewise.summarize(transfers)
    claims = [*full_vector.make_claims(early), *coordinatewise.make_claims(nets)]
    command = shlex.join(["python", "-m", "benchmarks.li_malik", *sys.argv[1:]])
    page = markdown([*early, *nets], command)
    print(page)
    chosen = {"part": "2017, chosen", "constants": constants}
    results.write(
        "li_malik",
        rows=[*early, *nets, chosen],
        claims=[] if arguments.quick else claims,
        seeds=[full_vector.TEST_KEY, coordinatewise.TEST_KEY],
        command=command,
        folder=folder,
    )
    (folder / "li_malik.md").write_text(page)
    plots.write(curves, transfers, folder)
    return 0 if arguments.quick or all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
