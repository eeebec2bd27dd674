"""MNIST: Flax's example CNN with only its optimizer replaced.

`python -m benchmarks.mnist` trains it for one epoch with AlphaOpt's pretrained agent, with AlphaOpt
from scratch and with Adam at 1e-3, and shows them side by side; it takes some minutes on two cores.
`python -m benchmarks.mnist --full` is the whole comparison: three epochs, three seeds; Adam, cosine
Adam and cosine SOAP over grids of rates, SGD with momentum, optax's tuning-free optimizers, an
agent that does not learn, and learning rates 100 times too small and too large. It takes hours on
two cores; finished runs are stored, so that an interrupted comparison continues where it stopped.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
import sys

from rich import console as rich_console
from rich import table as rich_table
import tyro

from alphaopt_jax.tasks import datasets
from benchmarks.common import results
from benchmarks.mnist import optimizers, plots, report, runs

_STEPS = 468  # An epoch of MNIST.


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Size of the comparison.

    Attributes:
      full: The whole comparison, instead of AlphaOpt and Adam for one epoch.
      epochs: Passes over the training set; by default 1, and 3 with `full`. Where other digits
        stand in for MNIST, as many as make about as many steps.
      seeds: Runs of each optimizer; by default 1, and 3 with `full`.
      data_dir: Folder in which TFDS has prepared MNIST; by default found or downloaded.
    """

    full: bool = False
    epochs: int | None = None
    seeds: int | None = None
    data_dir: Path | None = None


def main(arguments: Arguments) -> int:
    """Runs everything, prints the table, writes the files; returns 0 if the claims hold."""
    logging.basicConfig(format="%(message)s")
    seeds = arguments.seeds or (3 if arguments.full else 1)
    folder = results.RESULTS if arguments.full else results.RESULTS / "quick"
    console = rich_console.Console()
    data = datasets.load_mnist(arguments.data_dir)
    console.print(f"{len(data.train_labels):,} training images: {data.source}")
    # The digits that stand in for MNIST are few: one pass over them shows no training.
    passes = max(1, _STEPS // (len(data.train_labels) // runs.BATCH_SIZE))
    epochs = arguments.epochs or (3 if arguments.full else passes)

    specs = optimizers.FULL if arguments.full else optimizers.QUICK
    store = runs.open_store(folder / "mnist_runs.jsonl" if arguments.full else None)
    found = runs.run_all(specs, data, epochs, seeds, store)
    rows = [report.summarize(spec, found[spec.name]) for spec in specs if spec.name in found]
    shown = report.displayed(rows)
    name = data.source.partition(" (")[0]  # Without MNIST, other digits are used.
    table = rich_table.Table(*shown[0], title=f"{name}, {epochs} epoch{'s' if epochs > 1 else ''}")
    for row in shown:
        table.add_row(*row.values())
    console.print(table)

    complete = arguments.full and len(rows) == len(specs)
    claims = report.make_claims(rows) if complete else []
    results.write(
        "mnist",
        rows=rows,
        claims=claims,
        seeds=range(seeds),
        command=" ".join(["python -m benchmarks.mnist", *sys.argv[1:]]),
        folder=folder,
    )
    plots.write(found, rows, folder / "mnist.png", name)
    if complete:
        (folder / "mnist.md").write_text(report.page(rows, epochs, seeds))
    console.print(f"Wrote {_shown_path(folder)}/mnist.json and the picture mnist.png.")
    return 0 if all(claim.holds for claim in claims) else 1


def _shown_path(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
