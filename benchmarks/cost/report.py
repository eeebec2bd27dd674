"""The claims and the page of `benchmarks.cost`: tables, and estimates for larger machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math
from typing import Any, NamedTuple

import numpy as np

from alphaopt_jax._agent import sampling
from alphaopt_jax.config import pretrained_config
from benchmarks.common import results
from benchmarks.common.results import Claim
from benchmarks.cost import models, runs
from benchmarks.cost.optimizers import ADAM, ALPHAOPT, FROM_SCRATCH, LEARN

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

    sizes = {row["parameters"] for row in rows if row.get("model") == runs.ONE_TENSOR}
    claims = []
    if runs.BAR_SIZE in sizes:
        for short, name, bar in (
            ("alphaopt", ALPHAOPT, 1.5),
            ("learn", LEARN, 1.8),
            ("from_scratch", FROM_SCRATCH, 1.8),
        ):
            value = found("times_adam", optimizer=name, parameters=runs.BAR_SIZE)
            text = f"{name}: ratio of the time of a step on 10 million parameters to that of Adam"
            claims.append(Claim(f"cost.times_adam.{short}", text, value, f"<= {bar}"))
        value = found("state_bytes_a_parameter", optimizer=ALPHAOPT, parameters=runs.BAR_SIZE)
        text = f"{ALPHAOPT}: bytes of state per parameter"
        claims.append(Claim("cost.state", text, value, "<= 12"))
    if sizes.issuperset(_FLAT_SIZES):
        costs = [
            found("nanoseconds_a_parameter", optimizer=ALPHAOPT, parameters=size)
            for size in _FLAT_SIZES
        ]
        middle = math.exp(np.mean(np.log(costs)))
        worst = max(max(cost / middle, middle / cost) for cost in costs)
        text = (
            f"{ALPHAOPT}: largest factor between the time per parameter at 1e6, 1e7 or 1e8"
            " parameters and their geometric mean"
        )
        claims.append(Claim("cost.flat", text, worst, "<= 1.2"))
    resnet = found("milliseconds", optimizer=ALPHAOPT, model=runs.RESNET)
    if math.isfinite(resnet):
        size = sum(math.prod(shape) for shape in models.resnet50())
        one = found("milliseconds", optimizer=ALPHAOPT, parameters=size // 1000 * 1000)
        text = (
            f"{ALPHAOPT}: ratio of the time of a step on ResNet-50's 161 leaves to that on one"
            " tensor of the same size"
        )
        claims.append(Claim("cost.leaves", text, resnet / one, "<= 1.3"))
        value = found("compile_seconds", optimizer=ALPHAOPT, model=runs.RESNET)
        text = f"{ALPHAOPT}: seconds to compile a step on ResNet-50's 161 leaves"
        claims.append(Claim("cost.compile", text, value, "< 10"))
    mnist = found("times_adam", kind="training", model=runs.MNIST, optimizer=ALPHAOPT)
    text = f"{ALPHAOPT}: ratio of the time of a whole train step of the MNIST CNN to that of Adam"
    claims.append(Claim("cost.mnist", text, mnist, "<= 1.1"))
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
      ours: Bytes by what they are for, of AlphaOpt.
      adam: The same, of Adam.
      flops: Floating-point operations of AlphaOpt.
      interval: Steps between two refreshes of the rate multipliers.
    """

    ours: Mapping[str, float]
    adam: Mapping[str, float]
    flops: float
    interval: int

    @property
    def bytes(self) -> float:
        """Total of AlphaOpt."""
        return sum(self.ours.values())

    @property
    def adam_bytes(self) -> float:
        """Total of Adam."""
        return sum(self.adam.values())


def _traffic() -> _Traffic:
    interval = pretrained_config().refresh_interval
    adam = {"gradient read": 4, "moments read and written": 16, "parameter read and written": 8}
    ours = {
        "gradient read twice, first for the check that it is finite": 8,
        "moments read and written": 16,
        "rate multiplier read": 2,
        "parameter read and written": 8,
        f"refresh of the rate multipliers every {interval} steps (16 read, 2 written, 16"
        " temporary)": 34 / interval,
    }
    return _Traffic(ours, adam, 30 + 150 / interval, interval)


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
        and row["optimizer"] in (ADAM, ALPHAOPT)
    }
    on_cpu = " and ".join(f"{name} {value:.2f} ns" for name, value in measured.items())
    return f"""## How it scales

{_one_step(traffic, sampled)}
**Measured here**, for ten million parameters: {on_cpu} per parameter.

{_larger_machines(traffic, sampled)}
**What grows with the number of leaves.** A step of many leaves takes longer to trace and compile:
each leaf has a gather of the parameter, one of the gradient, a sum, and three loops. On one device,
small leaves are refreshed together, and large ones with those of the same shape; under explicit
sharding, only leaves of the same shape and sharding; where the compiler chooses the sharding, each
leaf on its own, which takes longer to compile.
"""


def _one_step(traffic: _Traffic, sampled: int) -> str:
    lines = "\n".join(f"| {what} | {size:.3g} |" for what, size in traffic.ours.items())
    adam = ", ".join(f"{what} {size}" for what, size in traffic.adam.items())
    return f"""**Memory traffic of a step.** A step is bound by memory, as Adam's is. For a frozen
agent in float32, after fusion by the compiler, in bytes per parameter:

| what | bytes |
| --- | --- |
{lines}
| **in all** | **{traffic.bytes:.3g}** |
| Adam: {adam} | {traffic.adam_bytes} |

By memory traffic, the ratio to Adam is {traffic.bytes:.3g} / {traffic.adam_bytes} =
{traffic.bytes / traffic.adam_bytes:.2f}. With `moment_dtype="bfloat16"` the moments take 8 bytes
instead of 16, and the state has 6 bytes per parameter instead of 10 (two moments, and a rate
multiplier in float16).

**Arithmetic of a step.** About 30 floating-point operations per parameter for the moments, the
direction and the step, and about 150 for a refresh every {traffic.interval} steps:
{traffic.flops:.0f} per step. Everything else is independent of the model's size: at most
{sampled:,} sampled parameters for a model of up to 128 leaves (128 per leaf beyond), a network of
22 x 32 x 32 for every leaf, and, if the agent learns, some 1,000 ({LEARN}) or up to 8,000
({FROM_SCRATCH}) explorers.
"""


def _larger_machines(traffic: _Traffic, sampled: int) -> str:
    h100_bytes, h100_flops = 3.35e12, 67e12
    billion = 1e9
    ms = 1e3 * billion * traffic.bytes / h100_bytes
    adam_ms = 1e3 * billion * traffic.adam_bytes / h100_bytes
    compute_ms = 1e3 * billion * traffic.flops / h100_flops
    chips, pod_params, network = 256, 70e9, 50e9
    share = pod_params / chips
    message = 2 * 4 * sampled
    return f"""**Estimate for one H100** (3.35 TB/s, 67 TFLOP/s in float32), a billion float32
parameters: 10⁹ x {traffic.bytes:.3g} B / 3.35 TB/s = {ms:.1f} ms for AlphaOpt,
10⁹ x {traffic.adam_bytes} B / 3.35 TB/s = {adam_ms:.1f} ms for Adam. The arithmetic takes
10⁹ x {traffic.flops:.0f} / 67 TFLOP/s = {compute_ms:.1f} ms at the same time. The
sample adds two gathers of {sampled:,} numbers, some microseconds. A refresh takes
{34e9 / h100_bytes * 1e3:.0f} ms, once every {traffic.interval} steps; all other steps are alike.

**Estimate for a pod** of {chips} such chips, 70 billion parameters, everything sharded {chips}
ways: each chip holds 70·10⁹ / {chips} = {share / 1e6:.0f} million parameters and
{10 * share / 1e9:.1f} GB of optimizer state (6 bytes: {6 * share / 1e9:.1f} GB; Adam:
{8 * share / 1e9:.1f} GB), and a step takes {1e3 * share * traffic.bytes / h100_bytes:.1f} ms (Adam:
{1e3 * share * traffic.adam_bytes / h100_bytes:.1f} ms). Only the samples of parameters and
gradients are communicated, 2 x 4 B x {sampled:,} = {message / 1024:.0f} KiB in one sum over all
chips, and one number per leaf for the check that all gradients are finite: at 50 GB/s
{2 * message / network * 1e6:.0f} µs, plus the latency of two sums. No leaf is gathered, which a
test asserts on the compiled program (`tests/optimizer/test_sharding.py`). Leaves keep their layout.
"""
