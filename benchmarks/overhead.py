"""Overhead: what one optimizer step costs in time and memory, beside optax.adam.

`python -m benchmarks.overhead` times, interleaved in one run so that the machine's moods hit all
alike, one jitted `update` of Adam and of AlphaOpt, frozen and learning online, on parameter
trees of 10 thousand to 10 million float32 numbers. Online steps are averaged over whole rollouts,
so that learning is in them. There is no bar to pass: these are the honest figures.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import sys
import time
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich import console as rich_console
from rich import progress as rich_progress
import tyro

import alphaopt_jax as alphaopt
from benchmarks import results_file

_OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "Adam": lambda: optax.adam(1e-3),
    "AlphaOpt, frozen": lambda: alphaopt.alphaopt(agent=None, learn=False),
    "AlphaOpt, online": lambda: alphaopt.alphaopt(agent=None),
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      sizes: Numbers of parameters.
      rounds: Times that every optimizer's turn comes.
    """

    sizes: tuple[int, ...] = (10_000, 1_000_000, 10_000_000)
    rounds: int = 7


def make_params(size: int) -> chex.ArrayTree:
    """A tree of four matrices and four vectors with about `size` numbers in all."""
    width = int(np.sqrt(size / 4.0))
    keys = jax.random.split(jax.random.key(0), 4)
    return {
        f"layer_{index}": {
            "kernel": jax.random.normal(key, (width, width)) / np.sqrt(width),
            "bias": jnp.zeros(width),
        }
        for index, key in enumerate(keys)
    }


def measure(size: int, rounds: int, advance: Callable[[], None]) -> list[dict[str, Any]]:
    """Times every optimizer on one tree; one row each."""
    params = make_params(size)
    grads = jax.tree.map(
        lambda leaf: 0.01 * jnp.cos(jnp.arange(leaf.size) * 1.0).reshape(leaf.shape), params
    )
    steps = 2 * alphaopt.AlphaOptConfig().rollout_length
    runners = {name: _Runner(make(), params, grads) for name, make in _OPTIMIZERS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, runner in runners.items():
            seconds[name].append(runner.seconds_per_step(steps))
            advance()
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    adam = np.array(seconds["Adam"])
    return [
        {
            "parameters": count,
            "optimizer": name,
            "milliseconds": 1e3 * float(np.median(seconds[name])),
            "times_adam": float(np.median(np.array(seconds[name]) / adam)),
            "state_bytes_per_parameter": runner.state_bytes / count,
            "compile_seconds": runner.compile_seconds,
        }
        for name, runner in runners.items()
    ]


class _Runner:
    """A compiled train step without a model: update and apply, with donated buffers."""

    def __init__(self, optimizer: optax.GradientTransformation, params, grads):
        optimizer = optax.with_extra_args_support(optimizer)

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params, state, grads, value):
            updates, state = optimizer.update(grads, state, params, value=value)
            return optax.apply_updates(params, updates), state

        self._params = jax.tree.map(jnp.array, params)  # Its own copy, since steps donate it.
        self._state = jax.jit(optimizer.init)(self._params)
        self._grads, self._value = grads, jnp.asarray(1.0)
        self.state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self._state))
        began = time.perf_counter()
        arguments = (self._params, self._state, self._grads, self._value)
        self._step = step.lower(*arguments).compile()
        self.compile_seconds = time.perf_counter() - began

    def seconds_per_step(self, steps: int) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            self._params, self._state = self._step(
                self._params, self._state, self._grads, self._value
            )
        jax.block_until_ready(self._params)
        return (time.perf_counter() - began) / steps


COLUMNS = {
    "parameters": "parameters",
    "optimizer": "optimizer",
    "milliseconds": "ms a step",
    "times_adam": "times Adam",
    "state_bytes_per_parameter": "bytes of state a parameter",
    "compile_seconds": "seconds to compile",
}


def main(arguments: Arguments) -> int:
    """Runs everything, prints the table, writes the files."""
    rows: list[dict[str, Any]] = []
    with rich_progress.Progress() as progress:
        total = len(arguments.sizes) * arguments.rounds * len(_OPTIMIZERS)
        task = progress.add_task("timing", total=total)
        for size in arguments.sizes:
            rows += measure(size, arguments.rounds, lambda: progress.advance(task))
    table = results_file.markdown_table(rows, COLUMNS)
    rich_console.Console().print(table)
    results_file.write(
        "overhead",
        rows=rows,
        claims=(),
        seeds=(0,),
        command=" ".join(["python -m benchmarks.overhead", *sys.argv[1:]]),
    )
    page = (
        "# Overhead\n\nMade by `python -m benchmarks.overhead`: one optimizer step, update and"
        " apply, jitted, interleaved in one run; medians. Learning costs the same whatever the size"
        f" of the model, so its share falls.\n\n{table}"
    )
    (results_file.RESULTS / "overhead.md").write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
