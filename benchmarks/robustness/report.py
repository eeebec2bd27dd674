"""The rows, the claims and the page of `benchmarks.robustness`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optax

import alphaopt_jax as alphaopt
from benchmarks.common import results
from benchmarks.common.modes import ALPHAOPT
from benchmarks.robustness import faults, games, runs


def optimizer_rows(
    name: str, tx: optax.GradientTransformation, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Trains with every fault; one row per fault.

    Args:
      name: Name of the optimizer.
      tx: The optimizer.
      seeds: Seeds of the runs.
    """
    usual = [runs.train(tx, seed=seed) for seed in seeds]
    progress = [_progress(run) for run in usual]
    rows = []
    for fault in faults.FAULTS:
        found = [runs.train(tx, fault, seed=seed) for seed in seeds]
        kept = [_progress(run) / whole for run, whole in zip(found, progress, strict=True)]
        skipped = None
        if name.startswith(ALPHAOPT):
            counts = {int(alphaopt.metrics(run.state)["updates_skipped"]) for run in found}
            (skipped,) = counts
        rows.append(
            {
                "optimizer": name,
                "fault": fault.name,
                "finite": all(bool(run.finite.all()) for run in found),
                "kept": float(np.mean(kept)),
                "least_kept": float(np.min(kept)),
                "loss": _final_loss(found),
                "loss_without": _final_loss(usual),
                "worst": float(np.max([run.losses.max() / run.losses[0] for run in found])),
                "skipped": skipped,
                "unusable": fault.steps if fault.skipped else 0,
                "passing": fault.skipped or fault.steps == 1,
            }
        )
    return rows


def _final_loss(found: Sequence[runs.Run]) -> float:
    """Geometric mean of the last losses on held-out data."""
    return float(np.exp(np.mean([np.log(run.losses[-1]) for run in found])))


def _progress(run: runs.Run) -> float:
    """Decrease of the log loss; minus infinity if parameters or loss became non-finite."""
    decrease = float(np.log(run.losses[0]) - np.log(run.losses[-1]))
    return decrease if np.isfinite(decrease) and run.finite.all() else -np.inf


def make_claims(rows: Sequence[Mapping[str, Any]]) -> list[results.Claim]:
    """The claims, over all ways to use AlphaOpt."""
    ours = [row for row in rows if row["optimizer"].startswith(ALPHAOPT)]
    lost = sum(not row["finite"] for row in ours)
    miscounted = sum(row["skipped"] != row["unusable"] for row in ours)
    kept = min(row["least_kept"] for row in ours if row["passing"])
    return [
        results.Claim(
            "robustness.lost",
            f"pairs of an AlphaOpt optimizer and a fault, of {len(ours)}, with non-finite"
            " parameters",
            lost,
            "== 0",
        ),
        results.Claim(
            "robustness.counted",
            f"pairs of the same {len(ours)} with a wrong count of skipped steps",
            miscounted,
            "== 0",
        ),
        results.Claim(
            "robustness.kept",
            "lowest share of the progress that AlphaOpt keeps, over faults of one step and faults"
            " with skipped steps",
            kept,
            ">= 0.9",
        ),
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per fault: the share of the progress that each optimizer keeps."""
    names = list(dict.fromkeys(row["optimizer"] for row in rows))
    lines = []
    for fault in dict.fromkeys(row["fault"] for row in rows):
        mine = {row["optimizer"]: row for row in rows if row["fault"] == fault}
        line: dict[str, Any] = {"fault": fault, "skipped": mine[names[0]]["skipped"]}
        for name in names:
            line[name] = f"{mine[name]['kept']:.2f}" if mine[name]["finite"] else "**lost**"
        lines.append(line)
    columns = {"fault": "fault", "skipped": "steps skipped", **{name: name for name in names}}
    return results.markdown_table(lines, columns)


def loss_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line without a fault and one for each fault: the last losses on held-out data."""
    names = list(dict.fromkeys(row["optimizer"] for row in rows))
    lines = [{"fault": "none"} | {row["optimizer"]: f"{row['loss_without']:.3g}" for row in rows}]
    for fault in dict.fromkeys(row["fault"] for row in rows):
        mine = {row["optimizer"]: row for row in rows if row["fault"] == fault}
        losses = {
            name: f"{mine[name]['loss']:.3g}" if mine[name]["finite"] else "**lost**"
            for name in names
        }
        lines.append({"fault": fault} | losses)
    return results.markdown_table(lines, {"fault": "fault", **{name: name for name in names}})


def page(
    rows: Sequence[Mapping[str, Any]], played: Sequence[Mapping[str, Any]], command: str
) -> str:
    """The page beside the JSON file.

    Args:
      rows: Of the faults.
      played: Of the games.
      command: The command that made them.
    """
    return f"""# Faults during training, and games

Made by `{command}`.

A classifier trained for {faults.STEPS} steps; the fault begins at step {faults.FIRST}. Figures are
shares of the progress, the decrease of the log loss from the first step to the last, relative to
the same run without a fault: 1 is no harm, 0 is no progress, "lost" is non-finite parameters. Means
over seeds. "Steps skipped" is the count in AlphaOpt's `metrics(state)`.

{table(rows)}
![Progress kept](robustness.png)

Loss on held-out data after the last step, geometric means over seeds. An optimizer that would have
gone farther has more to lose: the same loss is a smaller share of its progress.

{loss_table(rows)}
## Games

A generator and a discriminator take {games.STEPS} steps each, with one optimizer for both. Errors
are means over the last fifth of the steps and over seeds: the sliced Wasserstein-2 distance of
generated points from the ring, and the Wasserstein-2 distance of normal distributions. AlphaOpt is
evaluated at `eval_params`, Adam at its last parameters and at an average with the same weights.
Adam's first decay is 0.5. A game is chaotic: seeds differ by more than a factor of two.

{games.table(played)}"""
