"""Faults in a training, and what becomes of it: `python -m benchmarks.robustness`, two minutes.

A small classifier is trained by each optimizer, once without and once with each of
`faults.FAULTS`. Nothing that is not finite may get into its parameters, what cannot be used must be
counted, and when the fault is over the training has to go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import shlex
import sys
from typing import Any

from matplotlib.figure import Figure
import numpy as np
import optax
from rich import progress as rich_progress
import tyro

import alphaopt_jax as alphaopt
from alphaopt_jax.plotting import _style as style
from benchmarks.common import results
from benchmarks.robustness import faults

ALPHAOPT, ADAM = "AlphaOpt", "Adam, tuned"
RATES = tuple(float(rate) for rate in np.logspace(-3, -1, 7))


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      seeds: Trainings of each.
      quick: One training of each, without the agents that learn.
    """

    seeds: int = 5
    quick: bool = False


def optimizers(seeds: Sequence[int], quick: bool) -> dict[str, optax.GradientTransformation]:
    """Those that are tried; Adam has the rate that is best without a fault."""
    found: dict[str, optax.GradientTransformation] = {
        ALPHAOPT: alphaopt.alphaopt(num_steps=faults.STEPS),
        "AlphaOpt, steps unknown": alphaopt.alphaopt(),
    }
    if not quick:
        found["AlphaOpt, learn=True"] = alphaopt.alphaopt(learn=True)
        found["AlphaOpt, fresh"] = alphaopt.alphaopt(agent=None)
    ends = {}
    for rate in RATES:
        adam = optax.adam(rate)  # Made once, for it is compiled for.
        ends[rate] = np.mean([np.log(_end(faults.train(adam, seed=seed))) for seed in seeds])
    best = min(ends, key=lambda rate: float(ends[rate]))
    found[ADAM] = optax.adam(best)
    found[f"{ADAM}, apply_if_finite"] = optax.apply_if_finite(optax.adam(best), faults.STEPS)
    return found


def try_all(
    name: str, tx: optax.GradientTransformation, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """A row for each fault: what became of the trainings with it.

    Args:
      name: Of the optimizer.
      tx: The optimizer.
      seeds: Of the trainings.
    """
    progress = [_progress(faults.train(tx, seed=seed)) for seed in seeds]
    rows = []
    for fault in faults.FAULTS:
        courses = [faults.train(tx, fault, seed=seed) for seed in seeds]
        kept = [_progress(one) / whole for one, whole in zip(courses, progress, strict=True)]
        skipped = None
        if name.startswith(ALPHAOPT):
            counts = {int(alphaopt.metrics(one.state)["updates_skipped"]) for one in courses}
            (skipped,) = counts
        rows.append(
            {
                "optimizer": name,
                "fault": fault.name,
                "finite": all(bool(one.finite.all()) for one in courses),
                "kept": float(np.mean(kept)),
                "least_kept": float(np.min(kept)),
                "worst": float(np.max([one.losses.max() / one.losses[0] for one in courses])),
                "skipped": skipped,
                "unusable": fault.steps if fault.skipped else 0,
                "passing": fault.skipped or fault.steps == 1,
            }
        )
    return rows


def _end(course: faults.Course) -> float:
    return float(course.losses[-1])


def _progress(course: faults.Course) -> float:
    """By how much the logarithm of the loss fell; minus infinity of a training that was lost."""
    fell = float(np.log(course.losses[0]) - np.log(course.losses[-1]))
    return fell if np.isfinite(fell) and course.finite.all() else -np.inf


def make_claims(rows: Sequence[Mapping[str, Any]]) -> list[results.Claim]:
    """What faults must not do to AlphaOpt, in any of its ways to be used."""
    ours = [row for row in rows if row["optimizer"].startswith(ALPHAOPT)]
    lost = sum(not row["finite"] for row in ours)
    miscounted = sum(row["skipped"] != row["unusable"] for row in ours)
    kept = min(row["least_kept"] for row in ours if row["passing"])
    return [
        results.Claim(
            "robustness.lost", f"trainings lost, of {len(ours)} rows of faults", lost, "== 0"
        ),
        results.Claim(
            "robustness.counted",
            "rows in which steps that cannot be made were not counted as such",
            miscounted,
            "== 0",
        ),
        results.Claim(
            "robustness.kept",
            "least share of the progress without a fault that is kept where steps are skipped or"
            " the fault comes once",
            kept,
            ">= 0.9",
        ),
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each fault: the share of the progress without it that each optimizer keeps."""
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


def page(rows: Sequence[Mapping[str, Any]], command: str) -> str:
    """The page beside the JSON file."""
    return f"""# Faults in a training

Made by `{command}`.

A classifier of {faults.STEPS} steps; the fault begins at step {faults.FIRST}. Figures are shares:
the decrease of the log loss from the first step to the last, over the same without the fault. 1 is
as good as without, 0 is where the training began, "lost" means parameters that are not finite.
Means over seeds. "Steps skipped" are those that AlphaOpt has counted in `metrics(state)`.

{table(rows)}
![Shares of the progress that are kept](robustness.png)
"""


@style.styled
def kept_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A dot for each fault and optimizer: what is kept of the progress without a fault."""
    names = [ALPHAOPT, *(name for name in dict.fromkeys(row["optimizer"] for row in rows))]
    shown = [name for name in dict.fromkeys(names) if name in (ALPHAOPT, ADAM)]
    all_faults = list(dict.fromkeys(row["fault"] for row in rows))
    figure = style.new_figure((7.6, 0.23 * len(all_faults) + 1.2), "What a training keeps")
    panel = figure.subplots()
    for name in shown:
        mine = {row["fault"]: row for row in rows if row["optimizer"] == name}
        color = style.color_of(name, dict.fromkeys(shown))
        for height, fault in enumerate(all_faults):
            row = mine[fault]
            kept = np.clip(row["kept"], -0.1, 1.2) if row["finite"] else -0.1
            marker = "o" if row["finite"] else "x"
            label = name if height == len(all_faults) - 1 else None
            panel.plot([kept], [height], marker, color=color, ms=5.5, alpha=0.85, label=label)
    panel.axvline(1.0, color=style.FAINT, lw=0.8)
    panel.set_yticks(range(len(all_faults)), all_faults)
    panel.set(xlim=(-0.15, 1.25), xlabel="share of the progress without a fault (x: lost)")
    panel.invert_yaxis()
    panel.legend(loc="lower left")
    return figure


def main(arguments: Arguments) -> int:
    """Runs all, writes the results; returns 0 if the claims hold."""
    seeds = range(1 if arguments.quick else arguments.seeds)
    found = optimizers(seeds, arguments.quick)
    rows: list[dict[str, Any]] = []
    for name, tx in rich_progress.track(found.items(), "faults"):
        rows += try_all(name, tx, seeds)
    folder = results.RESULTS / ("quick" if arguments.quick else "")
    claims = make_claims(rows)
    command = shlex.join(["python", "-m", "benchmarks.robustness", *sys.argv[1:]])
    results.write(
        "robustness", rows=rows, claims=claims, seeds=seeds, command=command, folder=folder
    )
    (folder / "robustness.md").write_text(page(rows, command))
    style.save_png(kept_figure(rows), folder / "robustness.png")
    print(table(rows))
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
