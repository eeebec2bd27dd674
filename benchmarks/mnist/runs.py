"""The runs of `benchmarks.mnist`: training the CNN with one optimizer, and all that are missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import functools
from pathlib import Path
import time
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import optax
from rich import progress as rich_progress

import alphaopt_jax as alphaopt
from alphaopt_jax.tasks import datasets, mnist
from benchmarks.common.run_store import RunStore
from benchmarks.mnist.optimizers import OptimizerSpec

STEPS_PER_REPORT = 26  # Divides the 468 steps of an epoch; the progress bar moves every 2 s or so.
BATCH_SIZE = 128


class Progress(NamedTuple):
    """Values of a progress bar: steps made and planned, and means over the last steps."""

    step: int
    num_steps: int
    loss: float
    accuracy: float
    steps_per_second: float
    state: optax.OptState


@dataclasses.dataclass(frozen=True)
class Run:
    """One finished training run.

    Attributes:
      seed: Seed of the initial parameters and of the order of the images.
      num_steps: Number of updates.
      losses: Minibatch loss, the mean over every `STEPS_PER_REPORT` steps.
      train_loss: Loss over the whole training set with the final parameters.
      test_loss: Loss over the test set.
      test_accuracy: Share of test images that are classified correctly.
      seconds: Wall-clock time of the training steps, without the first few, which include the
        compilation.
      interrupted: True if Ctrl-C ended the run early.
    """

    seed: int
    num_steps: int
    losses: list[float]
    train_loss: float
    test_loss: float
    test_accuracy: float
    seconds: float
    interrupted: bool


class Key(NamedTuple):
    """Key of one stored run.

    Attributes:
      optimizer: Name of the optimizer.
      seed: As in `Run`.
      epochs: Passes over the training set.
      source: Name of the images.
      version: Version of AlphaOpt; None for all other optimizers.
    """

    optimizer: str
    seed: int
    epochs: int
    source: str
    version: str | None


Store = RunStore[Key]


def open_store(path: Path | None) -> Store:
    """Returns the store of finished runs in a file; None keeps them in memory only."""
    return RunStore(path, Key)


def run_all(
    specs: Sequence[OptimizerSpec],
    data: datasets.ImageClassificationData,
    epochs: int,
    seeds: int,
    store: Store,
) -> dict[str, list[Run]]:
    """Trains with every optimizer and seed, with a progress bar; Ctrl-C ends it early.

    Args:
      specs: The optimizers.
      data: The images.
      epochs: Passes over the training set.
      seeds: Number of runs of each optimizer.
      store: The store of finished runs.

    Returns:
      The runs of each optimizer, by its name.
    """
    runs: dict[str, list[Run]] = {}
    columns = (
        rich_progress.TextColumn("{task.description:<32}"),
        rich_progress.BarColumn(bar_width=24),
        rich_progress.TextColumn("{task.fields[figures]}"),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns) as bar:
        for spec in specs:
            for seed in range(seeds):
                key = Key(spec.name, seed, epochs, data.source.partition(" (")[0], spec.version)
                if key in store:
                    run = Run(seed=seed, **store[key])
                else:
                    run = _train_with_bar(spec, data, epochs, seed, bar)
                    if not run.interrupted:
                        store.add({key: _without_seed(run)})
                runs.setdefault(spec.name, []).append(run)
                if run.interrupted:
                    bar.console.print("Interrupted: the figures are those reached so far.")
                    return runs
    return runs


def _without_seed(run: Run) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(run).items() if name != "seed"}


def _train_with_bar(
    spec: OptimizerSpec,
    data: datasets.ImageClassificationData,
    epochs: int,
    seed: int,
    bar: rich_progress.Progress,
) -> Run:
    task = bar.add_task(f"{spec.name}, seed {seed}", figures="compiling", total=None)

    def show(progress: Progress) -> None:
        figures = f"loss {progress.loss:.4f}  accuracy {progress.accuracy:.3f}"
        if isinstance(progress.state, alphaopt.AlphaOptState):
            rate = float(alphaopt.metrics(progress.state)["mean_learning_rate"])
            figures += f"  mean rate {rate:.1e}"
        figures += f"  {progress.steps_per_second:.1f} steps/s"
        bar.update(task, completed=progress.step, total=progress.num_steps, figures=figures)

    run = train(spec, data, seed=seed, epochs=epochs, on_progress=show)
    bar.update(
        task, figures=f"training loss {run.train_loss:.4f}  test accuracy {run.test_accuracy:.4f}"
    )
    return run


def train(
    spec: OptimizerSpec,
    data: datasets.ImageClassificationData,
    *,
    seed: int,
    epochs: int,
    on_progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Trains `mnist.CNN` from initial parameters and evaluates it.

    Args:
      spec: The optimizer; the minibatch loss is passed to its `update` as `value`.
      data: The images.
      seed: Seed of the initial parameters and of the order of the images. Optimizers at one seed
        have the same initial parameters and the same batches.
      epochs: Passes over the training set; an incomplete last batch is left out, as in Flax's
        example.
      on_progress: Called after every few steps.

    Returns:
      The `Run`; after Ctrl-C, up to the last steps that were made.
    """
    batches = _batch_indices(len(data.train_labels), BATCH_SIZE, epochs, seed)
    optimizer = optax.with_extra_args_support(spec.optimizer_fn(seed, len(batches)))
    params = mnist.init_params(jax.random.key(seed))
    state = jax.jit(optimizer.init)(params)

    # One jit for each step and no scan: in a loop, XLA runs convolutions on CPUs without its fast
    # kernels.
    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train_step(params, state, images, labels):
        (loss, accuracy), grads = jax.value_and_grad(mnist.loss_and_accuracy, has_aux=True)(
            params, images, labels
        )
        updates, state = optimizer.update(grads, state, params, value=loss)
        return optax.apply_updates(params, updates), state, (loss, accuracy)

    losses: list[float] = []
    seconds, interrupted = 0.0, False
    try:
        for start in range(0, len(batches), STEPS_PER_REPORT):
            began = time.perf_counter()
            measured = []
            for batch in batches[start : start + STEPS_PER_REPORT]:
                images, labels = data.train_images[batch], data.train_labels[batch]
                params, state, measures = train_step(params, state, images, labels)
                measured.append(measures)
            loss, accuracy = np.mean(np.array(jax.device_get(measured)), axis=0)
            losses.append(float(loss))
            elapsed = time.perf_counter() - began
            seconds += elapsed if start else 0.0
            if on_progress is not None:
                done, rate = start + len(measured), len(measured) / elapsed
                on_progress(Progress(done, len(batches), float(loss), float(accuracy), rate, state))
    except KeyboardInterrupt:
        interrupted = True
    if spec.evaluation_params is not None:
        params = spec.evaluation_params(state, params)
    return Run(
        seed=seed,
        num_steps=min(len(losses) * STEPS_PER_REPORT, len(batches)),
        losses=losses,
        seconds=seconds,
        interrupted=interrupted,
        **_evaluate(params, data),
    )


def _evaluate(params: chex.ArrayTree, data: datasets.ImageClassificationData) -> dict[str, float]:
    train_loss, _ = mnist.evaluate(params, data.train_images, data.train_labels)
    test_loss, test_accuracy = mnist.evaluate(params, data.test_images, data.test_labels)
    figures = {"train_loss": train_loss, "test_loss": test_loss, "test_accuracy": test_accuracy}
    return {name: float(value) for name, value in figures.items()}


def _batch_indices(count: int, batch_size: int, epochs: int, seed: int) -> np.ndarray:
    """Shuffled indices of every batch of every epoch: `int32[epochs * (count // batch), batch]`."""
    generator = np.random.default_rng(seed)
    steps = count // batch_size
    shuffled = [generator.permutation(count)[: steps * batch_size] for _ in range(epochs)]
    return np.concatenate(shuffled).reshape(-1, batch_size).astype(np.int32)
