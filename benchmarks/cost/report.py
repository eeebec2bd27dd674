"""The claims and the page of `benchmarks.cost`: tables, and estimates for larger machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math
from typing import Any, NamedTuple

import numpy as np

from alphaopt_jax._agent import rotation, sampling
from alphaopt_jax.config import DEFAULT_BLOCK_SIZE, pretrained_config
from benchmarks.common import results
from benchmarks.common.results import Claim
from benchmarks.cost import models, runs
from benchmarks.cost.optimizers import (
    ADAM,
    ALPHAOPT,
    FROM_SCRATCH,
    LEARN,
    LEARN_OWN,
    NO_HORIZON,
    OWN,
    SOAP,
)

_STEP_COLUMNS = {
    "model": "model",
    "parameters": "parameters",
    "leaves": "leaves",
    "dtype": "type",
    "optimizer": "optimizer",
    "milliseconds": "ms per step",
    "times_adam": "ratio to Adam",
    "times_adam_interval": "middle 80 %",
    "nanoseconds_a_parameter": "ns per parameter",
    "times_memory_limit": "multiple of the memory limit",
    "state_bytes_a_parameter": "bytes of state per parameter",
    "temporary_bytes_a_parameter": "temporary bytes per parameter",
    "accessed_bytes_a_parameter": "bytes per parameter by XLA's count",
    "compile_seconds": "seconds to compile",
}
_TRAINING_COLUMNS = {
    "model": "model",
    "parameters": "parameters",
    "optimizer": "optimizer",
    "milliseconds": "ms per step",
    "times_adam": "ratio to Adam",
    "times_adam_interval": "middle 80 %",
    "compile_seconds": "seconds to compile",
}
_TRAINED = (ALPHAOPT, NO_HORIZON, LEARN, OWN, SOAP)
"""Optimizers whose whole train steps are in the short table."""
SUMMARY_COLUMNS = {
    key: _STEP_COLUMNS[key]
    for key in ("parameters", "optimizer", "milliseconds", "times_adam", "state_bytes_a_parameter")
}
"""Columns of the short table in README and documentation."""


_FLAT_SIZES = (1_000_000, 10_000_000, 100_000_000)


def make_claims(rows: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """The claims, as far as they were measured."""

    def found(key: str, **wanted: Any) -> float:
        wanted = {"kind": "step", "dtype": "float32", "model": runs.ONE_TENSOR} | wanted
        values = [row[key] for row in rows if all(row.get(k) == v for k, v in wanted.items())]
        return float(values[0]) if values else math.nan

    def claim(name: str, text: str, value: float, bar: str) -> list[Claim]:
        return [Claim(f"cost.{name}", text, value, bar)] if math.isfinite(value) else []

    claims = []
    for short, name, bar in (
        ("parameters", OWN, 1.2),
        ("learn", LEARN_OWN, 1.8),
        ("from_scratch", FROM_SCRATCH, 1.8),
    ):
        value = found("times_adam", optimizer=name, parameters=runs.BAR_SIZE)
        text = f"{name}: ratio of the time of a step on 10 million parameters to that of Adam"
        claims += claim(f"times_adam.{short}", text, value, f"<= {bar}")
    value = found("state_bytes_a_parameter", optimizer=OWN, parameters=runs.BAR_SIZE)
    claims += claim("state.parameters", f"{OWN}: bytes of state per parameter", value, "<= 10")
    for short, name in (("told", ALPHAOPT), ("untold", NO_HORIZON)):
        value = found("state_bytes_a_parameter", optimizer=name, parameters=runs.SQUARE_SIZE)
        text = f"{name}: bytes of state per parameter of a matrix of 512 x 512"
        claims += claim(f"state.{short}", text, value, "<= 14")
    costs = [
        found("nanoseconds_a_parameter", optimizer=OWN, parameters=size) for size in _FLAT_SIZES
    ]
    middle = math.exp(np.mean(np.log(costs)))
    worst = max(max(cost / middle, middle / cost) for cost in costs)
    text = (
        f"{OWN}: largest factor between the time per parameter at 1e6, 1e7 or 1e8"
        " parameters and their geometric mean"
    )
    claims += claim("flat", text, worst, "<= 1.2")
    size = sum(math.prod(shape) for shape in models.resnet50())
    resnet = found("milliseconds", optimizer=OWN, model=runs.RESNET)
    one = found("milliseconds", optimizer=OWN, parameters=size // 1000 * 1000)
    text = (
        f"{OWN}: ratio of the time of a step on ResNet-50's 161 leaves to that on one"
        " tensor of the same size"
    )
    claims += claim("leaves", text, resnet / one, "<= 1.3")
    for short, model in (("resnet", runs.RESNET), ("small_leaves", runs.SMALL_LEAVES)):
        ours, adams = (
            found("compile_seconds", optimizer=name, model=model) for name in (ALPHAOPT, ADAM)
        )
        text = f"{ALPHAOPT}: ratio of the time to compile a step on {model} to that of Adam"
        claims += claim(f"compile.{short}", text, ours / adams, "<= 4")
    for short, model, bar in (
        ("mnist", runs.MNIST, 1.2),
        ("transformer", runs.TRANSFORMER, 1.12),
        ("large_batches", runs.LARGE_BATCHES, 1.3),
        ("small_batches", runs.SMALL_BATCHES, 2.5),
    ):
        value = found("times_adam", kind="training", model=model, optimizer=ALPHAOPT)
        text = f"{ALPHAOPT}: ratio of the time of a whole train step to that of Adam, {model}"
        claims += claim(short, text, value, f"<= {bar}")
    return claims


def tables(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Both Markdown tables by their titles."""
    shown = [_shown(row) for row in rows]
    return {
        "One optimizer step, update and apply": results.markdown_table(
            [row for row in shown if row["kind"] == "step"], _STEP_COLUMNS
        ),
        "Whole train steps": results.markdown_table(
            [row for row in shown if row["kind"] == "training"], _TRAINING_COLUMNS
        ),
    }


def summary(rows: Sequence[Mapping[str, Any]], size: int = 10_000_000) -> str:
    """The short table: one tensor of ten million parameters."""
    chosen = [
        row
        for row in rows
        if row["kind"] == "step" and row["parameters"] == size and row["dtype"] == "float32"
    ]
    return results.markdown_table(chosen, SUMMARY_COLUMNS)


def training_summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Whole train steps, one row for each model: Adam's time, and the others' ratios to it."""
    by_model: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["kind"] != "training":
            continue
        shown = by_model.setdefault(row["model"], {"model": row["model"]})
        if row["optimizer"] == ADAM:
            shown[ADAM] = f"{row['milliseconds']:.1f} ms"
        elif row["optimizer"] in _TRAINED:
            shown[row["optimizer"]] = f"{row['times_adam']:.2f}"
    columns = {name: name for name in ("model", ADAM, *_TRAINED)}
    return results.markdown_table(list(by_model.values()), columns)


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """The whole page."""
    (triad,) = (row["gigabytes_a_second"] for row in rows if row["kind"] == "triad")
    parts = [
        "# Cost, and how it scales\n\nMade by `python -m benchmarks.cost`. All timings are from one"
        " run, interleaved, over whole cycles of 16 steps; medians over rounds. A triad in the same"
        f" run moved {triad:.1f} GB/s; the *memory limit* is the time at that bandwidth for reading"
        " the gradients, and reading and writing the parameters and the state, once. The column"
        " before the last one is XLA's cost analysis, which counts conditional work as if it were"
        " done at every step; temporary bytes are the memory that XLA needs besides its inputs."
        "\n\n![Time per parameter over the size of the model](cost.png)\n",
        *(f"## {title}\n\n{table}" for title, table in tables(rows).items()),
        _on_paper(rows),
    ]
    return "\n".join(parts)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = dict(row)
    if "times_adam_interval" in row:
        low, high = row["times_adam_interval"]
        shown["times_adam_interval"] = f"{low:.2f}–{high:.2f}"
    return shown


class _Traffic(NamedTuple):
    """Memory traffic and arithmetic of a step, per parameter.

    Attributes:
      own: Bytes by what they are for, in the parameters' coordinates.
      turning: Bytes that rotated coordinates add.
      adam: Bytes of Adam.
      own_flops: Floating-point operations in the parameters' coordinates.
      turning_flops: Those that rotated coordinates add.
      interval: Steps between two refreshes of the bases.
    """

    own: Mapping[str, float]
    turning: Mapping[str, float]
    adam: Mapping[str, float]
    own_flops: float
    turning_flops: float
    interval: int

    @property
    def own_bytes(self) -> float:
        """Total in the parameters' coordinates."""
        return sum(self.own.values())

    @property
    def bytes(self) -> float:
        """Total in rotated coordinates."""
        return self.own_bytes + sum(self.turning.values())

    @property
    def adam_bytes(self) -> float:
        """Total of Adam."""
        return sum(self.adam.values())


def _traffic() -> _Traffic:
    interval, width = pretrained_config().refresh_interval, DEFAULT_BLOCK_SIZE
    seldom = rotation.MOMENTS_INTERVAL
    adam = {"gradient read": 4, "moments read and written": 16, "parameter read and written": 8}
    own = {
        "gradient read twice, first for the check that it is finite": 8,
        "moments read and written": 16,
        "parameter read and written": 8,
    }
    turning = {
        f"gradient read every {seldom} steps for the second moments of both sides": 8 / seldom,
        "gradient turned on both sides, read and written": 16,
        "step turned back on both sides, read and written": 16,
        f"first moments turned every {interval} steps": 16 / interval,
    }
    # A product with a block takes two operations for each parameter and coordinate of the block:
    # two for the second moments, two there and two back.
    flops = (8 + 4 / seldom + 4 / interval) * width
    return _Traffic(own, turning, adam, 30, flops, interval)


def _on_paper(rows: Sequence[Mapping[str, Any]]) -> str:
    """Traffic and arithmetic of a step, and estimates for machines that were not measured."""
    traffic = _traffic()
    sampled = int(sampling.of_shapes([(4096, 4096)] * 4).positions.size)
    measured = {
        row["optimizer"]: row["nanoseconds_a_parameter"]
        for row in rows
        if row["kind"] == "step"
        and row["parameters"] == runs.BAR_SIZE
        and row["dtype"] == "float32"
        and row["optimizer"] in (ADAM, OWN, ALPHAOPT)
    }
    on_cpu = " and ".join(f"{name} {value:.2f} ns" for name, value in measured.items())
    return f"""## How it scales

{_one_step(traffic, sampled)}
**Measured here**, for ten million parameters: {on_cpu} per parameter.

{_larger_machines(traffic, sampled)}
**What grows with the number of leaves.** A step of many leaves takes longer to trace and compile:
each leaf has a gather of the parameter, one of the gradient, a sum, three loops and, in rotated
coordinates, two products of matrices for the second moments, two there, two back and two for the
first moments. Small leaves of one shape are stacked, so that one computation serves all of them;
larger ones share compiled programs. Both hold on any number of devices.
"""


def _one_step(traffic: _Traffic, sampled: int) -> str:
    own, turning = (
        "\n".join(f"| {what} | {size:.3g} |" for what, size in part.items())
        for part in (traffic.own, traffic.turning)
    )
    adam = ", ".join(f"{what} {size}" for what, size in traffic.adam.items())
    return f"""**Memory traffic of a step**, for a frozen agent that knows the number of steps, in
float32, after fusion by the compiler, in bytes per parameter:

| what | bytes |
| --- | --- |
{own}
| **in the parameters' coordinates** | **{traffic.own_bytes:.3g}** |
{turning}
| **in rotated coordinates** | **{traffic.bytes:.3g}** |
| Adam: {adam} | {traffic.adam_bytes} |

By memory traffic, the ratio to Adam is {traffic.own_bytes:.3g} / {traffic.adam_bytes} =
{traffic.own_bytes / traffic.adam_bytes:.2f} in the parameters' coordinates and
{traffic.bytes / traffic.adam_bytes:.2f} in rotated ones. Without a number of steps, the average of
the parameters is read and written too: 8 bytes. With `moment_dtype="bfloat16"` the moments take 8
bytes instead of 16.

**State.** Two moments, 8 bytes per parameter (4 in bfloat16), and without a number of steps 4 for
the average. A block of {DEFAULT_BLOCK_SIZE} x {DEFAULT_BLOCK_SIZE} second moments and one of basis
for each {DEFAULT_BLOCK_SIZE} rows and each {DEFAULT_BLOCK_SIZE} columns:
{16 * DEFAULT_BLOCK_SIZE / 512:.0f} bytes per parameter of a matrix of 512 x 512, an eighth of that
at 4,096 x 4,096.

**Arithmetic of a step.** About {traffic.own_flops:.0f} floating-point operations per parameter for
the moments, the direction and the step, and {traffic.turning_flops:.0f} in products with blocks.
For comparison: the gradient of a dense layer takes 6 for each example of a batch (each token, each
position of a convolution). The share of the turning is therefore
{traffic.turning_flops / 6:.0f} divided by the number of these in a batch. Everything else is
independent of the model's size: at most {sampled:,} sampled parameters for a model of up to 128
leaves (128 per leaf beyond), a network of 22 x 32 x 32 for every leaf, and, if the agent learns,
some 1,000 ({LEARN}) or up to 8,000 ({FROM_SCRATCH}) explorers.
"""


def _larger_machines(traffic: _Traffic, sampled: int) -> str:
    h100_bytes, h100_flops, network = 3.35e12, 67e12, 50e9
    own_ms, ms, adam_ms = (
        1e12 * size / h100_bytes for size in (traffic.own_bytes, traffic.bytes, traffic.adam_bytes)
    )
    flops = traffic.own_flops + traffic.turning_flops
    gradient_seconds = 6e15 / 400e12
    chips, pod_params = 256, 70e9
    share = pod_params / chips
    message = 2 * 4 * sampled
    blocks = 2 * 4 * DEFAULT_BLOCK_SIZE * 2 / 4096
    return f"""**Estimate for one H100** (3.35 TB/s, 67 TFLOP/s in float32), a billion float32
parameters: 10⁹ x {traffic.bytes:.3g} B / 3.35 TB/s = {ms:.1f} ms in rotated coordinates,
{own_ms:.1f} ms in the parameters', {adam_ms:.1f} ms for Adam. The arithmetic takes
10⁹ x {flops:.0f} / 67 TFLOP/s = {1e12 * flops / h100_flops:.1f} ms at the same time. A batch of a
million tokens takes about 6 x 10⁹ x 10⁶ / 400 TFLOP/s = {gradient_seconds:.0f} s for its gradient.
The sample adds two gathers of {sampled:,} numbers, some microseconds.

**Estimate for a pod** of {chips} such chips, 70 billion parameters, everything sharded {chips}
ways: each chip holds 70·10⁹ / {chips} = {share / 1e6:.0f} million parameters and
{8 * share / 1e9:.1f} GB of moments, as Adam's, and a step takes {share * ms / 1e9:.1f} ms (Adam:
{share * adam_ms / 1e9:.1f} ms). Communicated are the samples of parameters and gradients,
2 x 4 B x {sampled:,} = {message / 1024:.0f} KiB in one sum over all chips; one number per leaf for
the check that all gradients are finite; and the second moments of each block, summed over the chips
that share it. Every chip holds all blocks: {blocks:.2f} bytes per parameter at 4,096 x 4,096, which
is {pod_params * blocks / 1e9:.0f} GB, too much for models of this size. There,
`coordinates="parameters"` communicates the samples alone, at 50 GB/s
{2e6 * message / network:.0f} µs and the latency of two sums. No leaf is gathered, which tests
assert on the compiled programs (`tests/optimizer/test_sharding.py`, `test_rotated.py`). Leaves keep
their layout.
"""
