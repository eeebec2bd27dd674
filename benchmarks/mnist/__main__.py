"""MNIST: Flax's example CNN with nothing but its optimizer replaced.

`python -m benchmarks.mnist` trains it with AlphaOpt's shipped agent, with a fresh one and with Adam
at 1e-3, one epoch each, and shows them side by side: some minutes on two cores.
`python -m benchmarks.mnist --full` is the whole comparison: three epochs, three seeds, Adam over a
grid of rates, SGD with momentum, optax's tuning-free optimizers, learning switched off, and starts
100 times too small and too large. It takes hours on two cores; finished runs are kept, so that it
goes on where it was stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import logging
from pathlib import Path
import sys
from typing import Any

import numpy as np
from rich import console as rich_console
from rich import progress as rich_progress
from rich import table as rich_table
import tyro

import alphaopt_jax as alphaopt
from alphaopt_jax import plotting
from alphaopt_jax._storage import atomic
from alphaopt_jax.tasks import datasets
from benchmarks.common import intervals, results
from benchmarks.mnist import optimizers as contenders
from benchmarks.mnist import training

_SMOOTHING = 3  # Points of the stored curves that the picture averages.


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      full: The whole comparison, in place of AlphaOpt and Adam for one epoch.
      epochs: Passes over the training set; by default 1, and 3 with `full`.
      seeds: Runs of each optimizer; by default 1, and 3 with `full`.
      data_dir: Folder in which TFDS has prepared MNIST; found or downloaded by default.
    """

    full: bool = False
    epochs: int | None = None
    seeds: int | None = None
    data_dir: Path | None = None


class RunStore:
    """Finished runs, one JSON object a line, so that an interrupted comparison can go on."""

    def __init__(self, path: Path | None):
        """Reads the runs at `path`; None keeps nothing."""
        self._path = path
        self._records = [] if path is None else atomic.read_json_lines(path)

    def find(self, identity: Mapping[str, Any]) -> training.Run | None:
        """The stored run with this identity, if there is one."""
        for record in self._records:
            if record["identity"] == identity:
                return training.Run(**record["run"])
        return None

    def add(self, identity: Mapping[str, Any], run: training.Run) -> None:
        """Stores a finished run."""
        if self._path is None or run.interrupted:
            return
        record = {"identity": identity, "run": dataclasses.asdict(run)}
        atomic.add_json_lines(self._path, [record])


def run_all(
    chosen: Sequence[contenders.Contender],
    data: datasets.ImageClassificationData,
    epochs: int,
    seeds: int,
    store: RunStore,
) -> dict[str, list[training.Run]]:
    """Trains with every contender and seed, with a live progress bar; Ctrl-C ends it early."""
    runs: dict[str, list[training.Run]] = {}
    columns = (
        rich_progress.TextColumn("{task.description:<32}"),
        rich_progress.BarColumn(bar_width=24),
        rich_progress.TextColumn("{task.fields[figures]}"),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns) as bar:
        for contender in chosen:
            for seed in range(seeds):
                identity = {
                    "name": contender.name,
                    "seed": seed,
                    "epochs": epochs,
                    "source": data.source.partition(" (")[0],
                    "settings": contender.settings,
                }
                run = store.find(identity)
                if run is None:
                    run = _train_with_bar(contender, data, epochs, seed, bar)
                    store.add(identity, run)
                runs.setdefault(contender.name, []).append(run)
                if run.interrupted:
                    bar.console.print("Interrupted: the figures are those reached so far.")
                    return runs
    return runs


def _train_with_bar(
    contender: contenders.Contender,
    data: datasets.ImageClassificationData,
    epochs: int,
    seed: int,
    bar: rich_progress.Progress,
) -> training.Run:
    task = bar.add_task(f"{contender.name}, seed {seed}", figures="compiling", total=None)

    def show(progress: training.Progress) -> None:
        figures = f"loss {progress.loss:.4f}  accuracy {progress.accuracy:.3f}"
        if isinstance(progress.state, alphaopt.AlphaOptState):
            rate = float(alphaopt.metrics(progress.state)["mean_learning_rate"])
            figures += f"  mean rate {rate:.1e}"
        figures += f"  {progress.steps_per_second:.1f} steps/s"
        bar.update(task, completed=progress.step, total=progress.num_steps, figures=figures)

    run = training.train(
        contender.make(seed, training.num_steps(data, epochs)),
        data,
        seed=seed,
        epochs=epochs,
        evaluation_params=contender.evaluation_params,
        on_progress=show,
    )
    bar.update(
        task, figures=f"training loss {run.train_loss:.4f}  test accuracy {run.test_accuracy:.4f}"
    )
    return run


def summarise(contender: contenders.Contender, runs: Sequence[training.Run]) -> dict[str, Any]:
    """One line of the table: means over the seeds, with 95 % Student intervals."""
    row: dict[str, Any] = {"optimizer": contender.name, "given": contender.given}
    for figure in ("test_accuracy", "train_loss", "test_loss"):
        values = np.array([getattr(run, figure) for run in runs])
        row[figure] = values.mean()
        row[f"{figure}_half_interval"] = intervals.half_interval(values)
        row[f"{figure}_by_seed"] = values
    return row


def make_claims(rows: Sequence[Mapping[str, Any]]) -> list[results.Claim]:
    """The promises of the full comparison."""
    by_name = {row["optimizer"]: row for row in rows}

    def loss(contender: contenders.Contender) -> float:
        return by_name[contender.name]["train_loss"]

    def ratio(name: str, text: str, ours: contenders.Contender, theirs: contenders.Contender):
        text = f"final training loss of {text}, as a ratio"
        return results.Claim(f"mnist.{name}", text, loss(ours) / loss(theirs), "<= 1")

    tuned = min((contenders.adam(rate) for rate in contenders.ADAM_GRID), key=loss)
    small, large = (
        contenders.adam(contenders.ADAM_DEFAULT * factor)
        for factor in (contenders.TOO_SMALL, contenders.TOO_LARGE)
    )
    return [
        results.Claim(
            "mnist.test_accuracy",
            "test accuracy of a fresh agent that is given nothing, mean over the seeds",
            by_name[contenders.ONLINE.name]["test_accuracy"],
            ">= 0.989",
        ),
        ratio("train_loss", "a fresh agent to Adam at 1e-3", contenders.ONLINE, contenders.ADAM),
        ratio(
            "learning",
            "a fresh agent to the same with learning off",
            contenders.ONLINE,
            contenders.LEARNING_OFF,
        ),
        ratio("tuned_adam", f"a fresh agent to {tuned.name}, the best", contenders.ONLINE, tuned),
        ratio("shipped", "the shipped agent to Adam at 1e-3", contenders.SHIPPED, contenders.ADAM),
        ratio(
            "shipped_tuned_adam",
            f"the shipped agent to {tuned.name}, the best",
            contenders.SHIPPED,
            tuned,
        ),
        ratio(
            "start_too_small",
            f"AlphaOpt started 100 times too small to {small.name}",
            contenders.ONLINE_TOO_SMALL,
            small,
        ),
        ratio(
            "start_too_large",
            f"AlphaOpt started 100 times too large to {large.name}",
            contenders.ONLINE_TOO_LARGE,
            large,
        ),
    ]


def _with_interval(row: Mapping[str, Any], figure: str, form: str, unit: float) -> str:
    text, half = format(row[figure] * unit, form), row[f"{figure}_half_interval"]
    return text if half is None else f"{text} ± {format(half * unit, form)}"


def displayed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The rows as tables show them."""
    return [
        {
            "optimizer": row["optimizer"],
            "given": row["given"],
            "test accuracy, %": _with_interval(row, "test_accuracy", ".2f", 100.0),
            "training loss": _with_interval(row, "train_loss", ".4f", 1.0),
            "test loss": _with_interval(row, "test_loss", ".4f", 1.0),
        }
        for row in rows
    ]


def markdown(rows: Sequence[Mapping[str, Any]], epochs: int, seeds: int) -> str:
    """The page beside the JSON file."""
    shown = displayed(rows)
    table = results.markdown_table(shown, {key: key for key in shown[0]})
    return (
        "# MNIST\n\nMade by `python -m benchmarks.mnist --full`.\n\n"
        f"Flax's example CNN, batch 128, {epochs} epochs, {seeds} seeds; mean and 95 % interval."
        " Losses are over the whole training and test sets with the final parameters. The"
        ' column "given" says what a user had to choose.\n\n'
        f"{table}"
    )


def draw(
    runs: Mapping[str, Sequence[training.Run]], names: Sequence[str], path: Path, data: str
) -> None:
    """Draws curves and final losses of some contenders on what is called `data`."""
    chosen = {name: runs[name] for name in names if name in runs}
    shortest = min(len(run.losses) for each in chosen.values() for run in each)
    steps = (np.arange(shortest) + 1) * training.STEPS_PER_REPORT
    figure = plotting.training_figure(
        curves={
            name: np.array([run.losses[:shortest] for run in each]) for name, each in chosen.items()
        },
        finals={name: np.array([run.train_loss for run in each]) for name, each in chosen.items()},
        x=steps,
        labels=plotting.TrainingLabels(
            title=f"{data}: Flax's CNN, only the optimizer replaced",
            x="step",
            curves="minibatch loss",
            finals="final training loss",
        ),
        window=_SMOOTHING if shortest > 2 * _SMOOTHING else 1,  # Or a short curve would be a dot.
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    plotting.save_png(figure, path)


def main(arguments: Arguments) -> int:
    """Runs everything, prints the table, writes the files; returns 0 if the claims hold."""
    logging.basicConfig(format="%(message)s")
    epochs = arguments.epochs or (3 if arguments.full else 1)
    seeds = arguments.seeds or (3 if arguments.full else 1)
    folder = results.RESULTS if arguments.full else results.RESULTS / "quick"
    console = rich_console.Console()
    data = datasets.load_mnist(arguments.data_dir)
    console.print(f"{len(data.train_labels):,} training images: {data.source}")

    chosen = contenders.FULL if arguments.full else contenders.QUICK
    store = RunStore(folder / "mnist_runs.jsonl" if arguments.full else None)
    runs = run_all(chosen, data, epochs, seeds, store)
    rows = [summarise(each, runs[each.name]) for each in chosen if each.name in runs]
    shown = displayed(rows)
    name = data.source.partition(" (")[0]  # Where there is no MNIST, other digits stand in.
    table = rich_table.Table(*shown[0], title=f"{name}, {epochs} epoch{'s' if epochs > 1 else ''}")
    for row in shown:
        table.add_row(*row.values())
    console.print(table)

    complete = arguments.full and len(rows) == len(chosen)
    claims = make_claims(rows) if complete else []
    results.write(
        "mnist",
        rows=rows,
        claims=claims,
        seeds=range(seeds),
        command=" ".join(["python -m benchmarks.mnist", *sys.argv[1:]]),
        folder=folder,
    )
    draw(runs, _pictured(rows), folder / "mnist.png", name)
    if complete:
        (folder / "mnist.md").write_text(markdown(rows, epochs, seeds))
    console.print(f"Wrote {_shown_path(folder)}/mnist.json and the picture mnist.png.")
    return 0 if all(claim.holds for claim in claims) else 1


def _pictured(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """AlphaOpt, shipped and fresh, Adam at its default and best, the tuning-free ones."""
    by_name = {row["optimizer"]: row for row in rows}
    grid = [contenders.adam(rate).name for rate in contenders.ADAM_GRID]
    tuned = min((name for name in grid if name in by_name), key=lambda n: by_name[n]["train_loss"])
    names = [
        contenders.SHIPPED.name,
        contenders.ONLINE.name,
        contenders.LEARNING_OFF.name,
        contenders.ADAM.name,
        tuned,
    ]
    names += [contender.name for contender in contenders.TUNING_FREE]
    return [name for name in dict.fromkeys(names) if name in by_name]


def _shown_path(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
