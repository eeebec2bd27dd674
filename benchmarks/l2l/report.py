"""The rows, the claims and the page of `benchmarks.l2l`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.common import intervals, results
from benchmarks.common.modes import ALPHAOPT
from benchmarks.l2l.optimizers import BASELINES, LSTM, RATES
from benchmarks.l2l.problems import PROBLEMS, Problem
from benchmarks.l2l.runs import HORIZON, STEPS, Curve

COLUMNS = {
    "problem": "problem",
    "optimizer": "optimizer",
    "rate": "learning rate",
    "initial": "initial loss",
    "loss": "at step 100",
    "interval": "±",
    "paper": "paper",
    "later": "at step 200",
    "later_interval": "± ",
    "paper_later": "paper ",
}


def summarize(curves: Sequence[Curve], problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """One row for each problem and optimizer."""
    by_name = {problem.name: problem for problem in problems}
    rows = []
    for curve in curves:
        problem = by_name[curve.problem]
        at_horizon = curve.losses[:, HORIZON]
        rows.append(
            {
                "problem": curve.problem,
                "optimizer": curve.optimizer,
                "rate": curve.rate,
                "initial": curve.losses[:, 0].mean(),
                "loss": at_horizon.mean(),
                "interval": intervals.half_interval(at_horizon),
                "paper": problem.paper.get(curve.optimizer),
                "later": curve.losses[:, -1].mean(),
                "later_interval": intervals.half_interval(curve.losses[:, -1]),
                "paper_later": problem.paper_later.get(curve.optimizer),
                "runs": len(at_horizon),
                "curve": curve.losses.mean(axis=0),
            }
        )
    return rows


def make_claims(rows: Sequence[dict[str, Any]]) -> list[results.Claim]:
    """The paper's claims about its LSTM, for the one trained here."""
    found = {(row["problem"], row["optimizer"]): row for row in rows}

    def best(problem: str, key: str) -> float:
        return min(found[problem, name][key] for name in BASELINES)

    quadratics, mnist = PROBLEMS[0].name, PROBLEMS[1].name
    claim = results.Claim
    return [
        claim(
            "l2l.quadratics.to_best",
            "quadratics: ratio of the LSTM's loss at step 100 to that of the best tuned optimizer",
            found[quadratics, LSTM]["loss"] / best(quadratics, "loss"),
            "< 1",
        ),
        claim(
            "l2l.quadratics.to_adam",
            "quadratics: ratio of the LSTM's loss at step 100 to tuned Adam's (paper: 0.74)",
            found[quadratics, LSTM]["loss"] / found[quadratics, "Adam"]["loss"],
            "<= 0.74",
        ),
        claim(
            "l2l.mnist.loss",
            "MNIST, 20 sigmoid units: the LSTM's loss at step 100 (paper: 0.245)",
            found[mnist, LSTM]["loss"],
            "<= 0.27",
        ),
        claim(
            "l2l.mnist.to_adam",
            "MNIST, 20 sigmoid units: ratio of the LSTM's loss at step 100 to tuned Adam's",
            found[mnist, LSTM]["loss"] / found[mnist, "Adam"]["loss"],
            "< 1",
        ),
        claim(
            "l2l.mnist.later_to_adam",
            "MNIST, 20 sigmoid units: the same ratio at step 200, twice the training horizon",
            found[mnist, LSTM]["later"] / found[mnist, "Adam"]["later"],
            "< 1",
        ),
    ]


def page(rows: Sequence[dict[str, Any]], command: str) -> str:
    """The page beside the JSON file."""
    return (
        f"# The learned LSTM optimizer\n\nMade by `{command}`.\n\nThe coordinatewise LSTM of"
        " Andrychowicz et al. 2016, trained again, on the paper's tasks. One LSTM is trained on"
        " quadratics of 10 dimensions, one on MNIST classifiers with 20 sigmoid units, both for"
        f" {HORIZON} steps; the other classifiers are unseen. Losses are means over runs with 95 %"
        " intervals; those of classifiers are of a new batch. Hand-designed optimizers have the"
        f" best of {len(RATES)} learning rates from {RATES[0]:g} to {RATES[-1]:g}, chosen for each"
        f" problem by the loss at step {HORIZON} on separate runs. The paper's figures are read off"
        f" its curves. {ALPHAOPT} is the pretrained agent with `num_steps={STEPS}`; nothing is"
        " tuned, and MNIST is not among its training tasks."
        f"\n\n{results.markdown_table(rows, COLUMNS)}\n![Curves](l2l.png)\n"
    )
