"""The rows, the claims and the page of `benchmarks.mnist`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.common import intervals, results
from benchmarks.mnist import optimizers
from benchmarks.mnist.optimizers import OptimizerSpec
from benchmarks.mnist.runs import BATCH_SIZE, Run


def summarize(spec: OptimizerSpec, runs: Sequence[Run]) -> dict[str, Any]:
    """One row of the table: means over the seeds, with 95 % Student intervals."""
    row: dict[str, Any] = {"optimizer": spec.name, "given": spec.given}
    for figure in ("test_accuracy", "train_loss", "test_loss"):
        values = np.array([getattr(run, figure) for run in runs])
        row[figure] = values.mean()
        row[f"{figure}_half_interval"] = intervals.half_interval(values)
        row[f"{figure}_by_seed"] = values
    return row


def best_of(specs: Sequence[OptimizerSpec], rows: Sequence[Mapping[str, Any]]) -> OptimizerSpec:
    """The optimizer with the least mean final training loss."""
    losses = {row["optimizer"]: row["train_loss"] for row in rows}
    return min((spec for spec in specs if spec.name in losses), key=lambda spec: losses[spec.name])


def tuned_adam(rows: Sequence[Mapping[str, Any]]) -> OptimizerSpec:
    """Adam at the best rate of the grid."""
    return best_of([optimizers.adam(rate) for rate in optimizers.ADAM_GRID], rows)


def tuned_cosine_adam(rows: Sequence[Mapping[str, Any]]) -> OptimizerSpec:
    """Cosine Adam at the best peak rate of the grid."""
    return best_of([optimizers.cosine_adam(rate) for rate in optimizers.ADAM_GRID], rows)


def tuned_cosine_soap(rows: Sequence[Mapping[str, Any]]) -> OptimizerSpec:
    """Cosine SOAP at the best peak rate of the grid."""
    return best_of([optimizers.cosine_soap(rate) for rate in optimizers.SOAP_GRID], rows)


def make_claims(rows: Sequence[Mapping[str, Any]]) -> list[results.Claim]:
    """The claims of the full comparison."""
    by_name = {row["optimizer"]: row for row in rows}

    def at_end(short: str, ours: OptimizerSpec) -> list[results.Claim]:
        row = by_name[ours.name]
        return [
            results.Claim(
                f"mnist.{short}.{figure}",
                f"{what} of {ours.name}, mean over the seeds",
                row[figure],
                bar,
            )
            for figure, what, bar in (
                ("test_accuracy", "test accuracy", ">= 0.993"),
                ("train_loss", "final training loss", "<= 0.006"),
            )
        ]

    def ratio(
        name: str,
        ours: OptimizerSpec,
        theirs: OptimizerSpec,
        figure: str = "train_loss",
        note: str = "",
    ) -> results.Claim:
        what = {"train_loss": "training loss", "test_loss": "test loss"}[figure]
        text = f"ratio of the final {what} of {ours.name} to that of {theirs.name}{note}"
        value = by_name[ours.name][figure] / by_name[theirs.name][figure]
        return results.Claim(f"mnist.{name}", text, value, "<= 1")

    tuned, cosine, soap = tuned_adam(rows), tuned_cosine_adam(rows), tuned_cosine_soap(rows)
    small, large = (
        optimizers.adam(optimizers.ADAM_DEFAULT * factor)
        for factor in (optimizers.TOO_SMALL, optimizers.TOO_LARGE)
    )
    scratch, best = optimizers.FROM_SCRATCH, ", the best of the grid"
    return [
        results.Claim(
            "mnist.test_accuracy",
            f"test accuracy of {scratch.name}, mean over the seeds",
            by_name[scratch.name]["test_accuracy"],
            ">= 0.989",
        ),
        ratio("train_loss", scratch, optimizers.ADAM),
        ratio("learning", scratch, optimizers.NOT_LEARNING),
        ratio("tuned_adam", scratch, tuned, note=best),
        *at_end("told", optimizers.ALPHAOPT),
        *at_end("untold", optimizers.NO_HORIZON),
        ratio("pretrained", optimizers.ALPHAOPT, optimizers.ADAM),
        ratio("pretrained_tuned_adam", optimizers.ALPHAOPT, tuned, note=best),
        ratio("pretrained_tuned_cosine_adam", optimizers.ALPHAOPT, cosine, note=best),
        ratio("pretrained_tuned_cosine_soap", optimizers.ALPHAOPT, soap, note=best),
        ratio(
            "pretrained_tuned_cosine_adam.test_loss",
            optimizers.ALPHAOPT,
            cosine,
            figure="test_loss",
            note=", the best of the grid by training loss",
        ),
        ratio("start_too_small", optimizers.START_TOO_SMALL, small),
        ratio("start_too_large", optimizers.START_TOO_LARGE, large),
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


def page(rows: Sequence[Mapping[str, Any]], epochs: int, seeds: int) -> str:
    """The page beside the JSON file."""
    shown = displayed(rows)
    table = results.markdown_table(shown, {key: key for key in shown[0]})
    return (
        "# MNIST\n\nMade by `python -m benchmarks.mnist --full`.\n\n"
        f"Flax's example CNN, batch size {BATCH_SIZE}, {epochs} epochs, {seeds} seeds; means and"
        " 95 % intervals. Losses are over the whole training and test sets with the final"
        " parameters."
        ' The column "given" lists what the user has to choose.\n\n'
        f"{table}"
    )
