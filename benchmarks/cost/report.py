"""The page of `benchmarks.cost`: its tables, and how the cost scales, measured and on paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alphaopt_jax._agent import sampling
from alphaopt_jax.config import adaptive_config
from benchmarks.common import results
from benchmarks.cost import optimizers

_STEP_COLUMNS = {
    "model": "model",
    "parameters": "parameters",
    "leaves": "leaves",
    "dtype": "type",
    "optimizer": "optimizer",
    "milliseconds": "ms a step",
    "times_adam": "times Adam",
    "times_adam_interval": "middle 80 %",
    "nanoseconds_a_parameter": "ns a parameter",
    "times_memory_limit": "times the memory's limit",
    "state_bytes_a_parameter": "bytes of state a parameter",
    "temporary_bytes_a_parameter": "temporary bytes a parameter",
    "accessed_bytes_a_parameter": "bytes a parameter by XLA's count",
    "compile_seconds": "s to compile",
}
_TRAINING_COLUMNS = {
    "model": "model",
    "parameters": "parameters",
    "optimizer": "optimizer",
    "milliseconds": "ms a step",
    "times_adam": "times Adam",
    "times_adam_interval": "middle 80 %",
    "compile_seconds": "s to compile",
}
SUMMARY_COLUMNS = {
    key: _STEP_COLUMNS[key]
    for key in ("parameters", "optimizer", "milliseconds", "times_adam", "state_bytes_a_parameter")
}
"""What the README shows."""


def tables(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Both tables, Markdown by title."""
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
    """The README's table: one tensor of ten million parameters."""
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
        "# Cost, and how it scales\n\nMade by `python -m benchmarks.cost`. All timings are of one"
        " run, interleaved, of whole cycles of 16 steps; medians over rounds. Memory moved"
        f" {triad:.1f} GB/s in a triad in the same run; *the memory's limit* is the time in which"
        " it would read the gradients, and read and write the parameters and the state, once. The"
        " last column but one is XLA's cost analysis, which counts what is conditional as if it"
        " were done at every step; temporary bytes are what XLA says it needs beside its inputs."
        "\n\n![Cost a parameter against the size of the model](cost.png)\n",
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


def _on_paper(rows: Sequence[Mapping[str, Any]]) -> str:
    """What a step moves and computes, and what that takes on machines that were not measured."""
    interval = adaptive_config().decision_interval
    sampled = int(sampling.of_shapes([(4096, 4096)] * 4).positions.size)
    adam = {"gradient read": 4, "moments read and written": 16, "parameter read and written": 8}
    ours = {
        "gradient read twice, the first time to see whether it is finite": 8,
        "moments read and written": 16,
        "relative rate read": 2,
        "parameter read and written": 8,
        f"a look at every parameter each {interval} steps (16 read, 2 written, 16 in between)": 34
        / interval,
    }
    moved, adam_moved = sum(ours.values()), sum(adam.values())
    flops = 30 + 150 / interval
    lines = "\n".join(f"| {what} | {size:.3g} |" for what, size in ours.items())
    h100_bytes, h100_flops = 3.35e12, 67e12
    billion = 1e9
    ms = 1e3 * billion * moved / h100_bytes
    adam_ms = 1e3 * billion * adam_moved / h100_bytes
    compute_ms = 1e3 * billion * flops / h100_flops
    chips, pod_params, network = 256, 70e9, 50e9
    share = pod_params / chips
    message = 2 * 4 * sampled
    measured = {
        row["optimizer"]: row["nanoseconds_a_parameter"]
        for row in rows
        if row["kind"] == "step"
        and row["parameters"] == 10_000_000
        and row["dtype"] == "float32"
        and row["optimizer"] in (optimizers.ADAM, optimizers.FROZEN)
    }
    on_cpu = " and ".join(f"{name} {value:.2f} ns" for name, value in measured.items())
    return f"""## How it scales

**What a step moves.** A step is bound by memory, as Adam's is. Of a frozen agent, float32, once
the compiler has fused what can be fused, in bytes a parameter:

| what | bytes |
| --- | --- |
{lines}
| **in all** | **{moved:.3g}** |
| Adam: {", ".join(f"{what} {size}" for what, size in adam.items())} | {adam_moved} |

So the ratio to Adam that memory allows is {moved:.3g} / {adam_moved} =
{moved / adam_moved:.2f}. With `moment_dtype="bfloat16"` the moments move 8 bytes in place of 16,
and the state is 6 bytes a parameter in place of 10 (two moments, and a factor in float16).

**What a step computes.** About 30 floating-point operations a parameter for the moments, the
direction and the step, and about 150 for a look, in {interval} steps: {flops:.0f} a step.
Everything else does not grow with the model: at most {sampled:,} sampled parameters of a model of
up to 128 leaves (128 a leaf beyond), a network of 22 x 32 x 32 for every leaf, and, where the agent
learns, some 1,000 (adaptive) or up to 8,000 (online) explorers.

**Measured here**, for ten million parameters: {on_cpu} a parameter.

**On paper, one H100** (3.35 TB/s, 67 TFLOP/s in float32), a billion float32 parameters:
10⁹ x {moved:.3g} B / 3.35 TB/s = {ms:.1f} ms for AlphaOpt, 10⁹ x {adam_moved} B / 3.35 TB/s =
{adam_ms:.1f} ms for Adam. The arithmetic takes 10⁹ x {flops:.0f} / 67 TFLOP/s = {compute_ms:.1f} ms
meanwhile, and hides behind the memory. The sample adds two gathers of {sampled:,} numbers, some
microseconds. A look takes {34e9 / h100_bytes * 1e3:.0f} ms, once in {interval} steps; nothing else
differs from step to step.

**On paper, a pod** of {chips} such chips, 70 billion parameters, everything sharded {chips} ways:
each chip holds 70·10⁹ / {chips} = {share / 1e6:.0f} million parameters and
{10 * share / 1e9:.1f} GB of optimizer state (6 bytes: {6 * share / 1e9:.1f} GB; Adam:
{8 * share / 1e9:.1f} GB), and steps in {1e3 * share * moved / h100_bytes:.1f} ms (Adam:
{1e3 * share * adam_moved / h100_bytes:.1f} ms). Between chips go only the samples of parameters and
gradients, 2 x 4 B x {sampled:,} = {message / 1024:.0f} KiB in one sum over all chips, and one
number a leaf to see whether all is finite: at 50 GB/s {2 * message / network * 1e6:.0f} µs, plus
the latency of two sums. That no leaf is ever gathered is asserted on the compiled program
(`tests/test_sharding.py`). Leaves keep their layout; explorers are written where they lie.

**What does grow.** A step of many leaves takes longer to trace and compile (for each a gather of
the parameter, one of the gradient, a sum, and three loops). On one device small leaves are looked
at together, and large ones with those of their shape; under explicit sharding only those that are
shaped and sharded alike; where the compiler chooses the sharding, each alone, which compiles
longer.
"""
