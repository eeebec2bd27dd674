"""Trains the MNIST CNN with any optax optimizer: the loop that `benchmarks.mnist` repeats."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import time
from typing import NamedTuple

import chex
import jax
import numpy as np
import optax

from alphaopt_jax.tasks import datasets, mnist

STEPS_PER_REPORT = 26  # Divides the 468 steps of an epoch; a progress bar moves about every 2 s.


class Progress(NamedTuple):
    """What a progress bar shows: steps done and planned, and means over the last steps."""

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
      seed: Decides the initial parameters and the order of the images.
      num_steps: Updates made.
      losses: Minibatch loss, the mean of every `STEPS_PER_REPORT` steps.
      train_loss: Loss over the whole training set with the final parameters.
      test_loss: The same over the test set.
      test_accuracy: Share of the test images classified rightly.
      seconds: Wall-clock of the training steps, without the first few, which hold the compilation.
      interrupted: Whether Ctrl-C ended it early.
    """

    seed: int
    num_steps: int
    losses: list[float]
    train_loss: float
    test_loss: float
    test_accuracy: float
    seconds: float
    interrupted: bool


def num_steps(data: datasets.ImageClassificationData, epochs: int, batch_size: int = 128) -> int:
    """Steps of a training; an incomplete last batch of an epoch is left out."""
    return epochs * (len(data.train_labels) // batch_size)


def train(
    optimizer: optax.GradientTransformation,
    data: datasets.ImageClassificationData,
    *,
    seed: int,
    epochs: int,
    batch_size: int = 128,
    evaluation_params: Callable[[optax.OptState, chex.ArrayTree], chex.ArrayTree] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Trains `mnist.CNN` from scratch and measures it.

    Args:
      optimizer: Any optax optimizer; the minibatch loss is passed to it as `value`.
      data: The images.
      seed: Decides the initial parameters and the order of the images, so that optimizers compared
        at one seed start from the same place and see the same batches.
      epochs: Passes over the training set.
      batch_size: Images a step; an incomplete last batch is left out, as in Flax's example.
      evaluation_params: Maps `(state, params)` to the parameters to evaluate, for optimizers
        such as schedule-free ones that evaluate at another point than they train.
      on_progress: Called after every few steps.

    Returns:
      The `Run`. After Ctrl-C it holds what was reached.
    """
    optimizer = optax.with_extra_args_support(optimizer)
    params = mnist.init_params(jax.random.key(seed))
    state = jax.jit(optimizer.init)(params)

    # One jit a step and no scan: in a loop, XLA runs convolutions on CPUs without its fast kernels.
    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train_step(params, state, images, labels):
        (loss, accuracy), grads = jax.value_and_grad(mnist.loss_and_accuracy, has_aux=True)(
            params, images, labels
        )
        updates, state = optimizer.update(grads, state, params, value=loss)
        return optax.apply_updates(params, updates), state, (loss, accuracy)

    batches = _batch_indices(len(data.train_labels), batch_size, epochs, seed)
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
    if evaluation_params is not None:
        params = evaluation_params(state, params)
    train_loss, _ = mnist.evaluate(params, data.train_images, data.train_labels)
    test_loss, test_accuracy = mnist.evaluate(params, data.test_images, data.test_labels)
    return Run(
        seed=seed,
        num_steps=min(len(losses) * STEPS_PER_REPORT, len(batches)),
        losses=losses,
        train_loss=float(train_loss),
        test_loss=float(test_loss),
        test_accuracy=float(test_accuracy),
        seconds=seconds,
        interrupted=interrupted,
    )


def _batch_indices(count: int, batch_size: int, epochs: int, seed: int) -> np.ndarray:
    """Shuffled indices of every batch of every epoch: `int32[epochs * (count // batch), batch]`."""
    generator = np.random.default_rng(seed)
    steps = count // batch_size
    shuffled = [generator.permutation(count)[: steps * batch_size] for _ in range(epochs)]
    return np.concatenate(shuffled).reshape(-1, batch_size).astype(np.int32)
