"""Cost: what one optimizer step takes in time and memory, beside Adam, from 1e4 to 1e8 parameters.

`python -m benchmarks.cost` times, interleaved in one run, one jitted step (update and apply, with
donated buffers) of every optimizer on one tensor of many sizes, on trees shaped like ResNet-50 and
GPT-2 small, in float32 and bfloat16; whole train steps of two small networks; and a triad, which
tells what the machine's memory can do. Every timing is of whole cycles of 16 steps, so that all
that an agent does now and then is in it. `--quick` takes two minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich import console as rich_console
from rich import progress as rich_progress
import tyro

from benchmarks.common import results
from benchmarks.common.results import Claim
from benchmarks.cost import models, optimizers, plots, report, timing, training
from benchmarks.cost.optimizers import ADAM, ADAPTIVE, FROZEN, ONLINE

ONE_TENSOR, RESNET, GPT = "one tensor", "ResNet-50", "GPT-2 small"
_TREES: dict[str, Callable[[], list[models.Shape]]] = {
    RESNET: models.resnet50,
    GPT: models.gpt2_small,
}
_BAR_SIZE, _FLAT_SIZES = 10_000_000, (1_000_000, 10_000_000, 100_000_000)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      sizes: Parameters of the one tensor.
      rounds: Times that every optimizer's turn comes, at least.
      quick: Up to a million parameters, and no trees.
    """

    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000, 25_557_032, 100_000_000)
    rounds: int = 7
    quick: bool = False


def measure(
    model: str,
    shapes: Sequence[models.Shape],
    dtype: jnp.dtype,
    rounds: int,
    bandwidth: float,
    advance: Callable[[], None],
) -> list[dict[str, Any]]:
    """Times every optimizer that can on one tree; a row each."""
    params, grads = models.make(shapes, dtype)
    count = sum(math.prod(shape) for shape in shapes)
    runners = {
        name: timing.Runner(contender.make(), params, _given, grads)
        for name, contender in optimizers.CONTENDERS.items()
        if count <= 1.01 * contender.largest
    }
    del params
    seconds = timing.interleaved(runners, rounds, advance)
    rows = []
    for name, runner in runners.items():
        least = 3 * jnp.dtype(dtype).itemsize * count + 2 * runner.state_bytes
        rows.append(
            {
                "kind": "step",
                "model": model,
                "parameters": count,
                "leaves": len(shapes),
                "dtype": jnp.dtype(dtype).name,
                "optimizer": name,
                "nanoseconds_a_parameter": 1e9 * float(np.median(seconds[name])) / count,
                "state_bytes_a_parameter": runner.state_bytes / count,
                "temporary_bytes_a_parameter": runner.temporary_bytes / count,
                "accessed_bytes_a_parameter": runner.accessed_bytes / count,
                "times_memory_limit": float(np.median(seconds[name])) * bandwidth / least,
                "compile_seconds": runner.compile_seconds,
            }
            | compared(seconds, name)
        )
    return rows


def _given(params: Any, grads: Any) -> tuple[jax.Array, Any]:
    """Stands for a model whose loss and gradients cost nothing."""
    del params
    return jnp.ones(()), grads


def compared(seconds: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
    """Milliseconds, and times Adam's: the median over rounds, and the middle eight tenths."""
    ratios = seconds[name] / seconds[ADAM]
    return {
        "milliseconds": 1e3 * float(np.median(seconds[name])),
        "times_adam": float(np.median(ratios)),
        "times_adam_interval": [float(each) for each in np.quantile(ratios, (0.1, 0.9))],
    }


def make_claims(rows: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """What is promised, as far as it was measured."""

    def found(key: str, **wanted: Any) -> float:
        wanted = {"kind": "step", "dtype": "float32", "model": ONE_TENSOR} | wanted
        values = [row[key] for row in rows if all(row.get(k) == v for k, v in wanted.items())]
        return float(values[0]) if values else math.nan

    sizes = {row["parameters"] for row in rows if row.get("model") == ONE_TENSOR}
    claims = []
    if _BAR_SIZE in sizes:
        for short, name, bar in (
            ("frozen", FROZEN, 1.5),
            ("adaptive", ADAPTIVE, 1.8),
            ("online", ONLINE, 1.8),
        ):
            value = found("times_adam", optimizer=name, parameters=_BAR_SIZE)
            text = f"a step of {name} on 10 million parameters takes so many of Adam's"
            claims.append(Claim(f"cost.times_adam.{short}", text, value, f"<= {bar}"))
        value = found("state_bytes_a_parameter", optimizer=FROZEN, parameters=_BAR_SIZE)
        text = f"state of {FROZEN}, bytes a parameter"
        claims.append(Claim("cost.state", text, value, "<= 12"))
    if sizes.issuperset(_FLAT_SIZES):
        costs = [
            found("nanoseconds_a_parameter", optimizer=FROZEN, parameters=size)
            for size in _FLAT_SIZES
        ]
        middle = math.exp(np.mean(np.log(costs)))
        worst = max(max(cost / middle, middle / cost) for cost in costs)
        text = (
            f"cost a parameter of {FROZEN} at 1e6, 1e7 and 1e8 parameters: the factor by which one"
            " is off their geometric mean"
        )
        claims.append(Claim("cost.flat", text, worst, "<= 1.2"))
    resnet = found("milliseconds", optimizer=FROZEN, model=RESNET)
    if math.isfinite(resnet):
        size = sum(math.prod(shape) for shape in models.resnet50())
        one = found("milliseconds", optimizer=FROZEN, parameters=size // 1000 * 1000)
        text = f"a step of {FROZEN} on ResNet-50's 161 leaves takes so many of one tensor's"
        claims.append(Claim("cost.leaves", text, resnet / one, "<= 1.3"))
        value = found("compile_seconds", optimizer=FROZEN, model=RESNET)
        text = f"seconds to compile a step of {FROZEN} on ResNet-50's 161 leaves"
        claims.append(Claim("cost.compile", text, value, "< 10"))
    mnist = found("times_adam", kind="training", model=training.MNIST, optimizer=FROZEN)
    text = f"a whole train step of the MNIST CNN with {FROZEN} takes so many of one with Adam"
    claims.append(Claim("cost.mnist", text, mnist, "<= 1.1"))
    return claims


def main(arguments: Arguments) -> int:
    """Runs everything, prints the tables, writes the files; returns 0 if the claims hold."""
    sizes = [size for size in arguments.sizes if size <= 1_000_000 or not arguments.quick]
    rounds = 3 if arguments.quick else arguments.rounds
    jobs = [(ONE_TENSOR, models.one_tensor(size), jnp.float32) for size in sizes]
    if not arguments.quick:
        jobs += [(name, make(), jnp.float32) for name, make in _TREES.items()]
        jobs += [(ONE_TENSOR, models.one_tensor(_BAR_SIZE), jnp.bfloat16)]
        jobs += [(GPT, models.gpt2_small(), jnp.bfloat16)]
    bandwidth = timing.triad_bandwidth()
    rows: list[dict[str, Any]] = [{"kind": "triad", "gigabytes_a_second": bandwidth / 1e9}]
    with rich_progress.Progress() as progress:
        turns = (1 + rounds) * len(optimizers.CONTENDERS)
        task = progress.add_task("timing", total=turns * (len(jobs) + len(training.MODELS)))

        def advance() -> None:
            progress.advance(task)

        for model, shapes, dtype in jobs:
            rows += measure(model, shapes, dtype, rounds, bandwidth, advance)
        for model in training.MODELS:
            rows += [
                {"kind": "training", "dtype": "float32"} | row | compared(seconds, name)
                for name, row, seconds in training.measure(model, rounds, advance)
            ]
        progress.update(task, completed=progress.tasks[0].total)
    claims = make_claims(rows)
    console = rich_console.Console()
    for title, table in report.tables(rows).items():
        console.print(title, style="bold")
        console.print(table)
    for claim in claims:
        console.print(
            f"{'holds' if claim.holds else 'FAILS'}: {claim.text}: {claim.value:.3g} {claim.bar}"
        )
    if arguments.quick:
        console.print("A quick look: nothing was written.")
        return 0
    results.write(
        "cost",
        rows=rows,
        claims=claims,
        seeds=(0,),
        command=" ".join(["python -m benchmarks.cost", *sys.argv[1:]]),
    )
    plots.write(rows, results.RESULTS)
    (results.RESULTS / "cost.md").write_text(report.page(rows))
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
