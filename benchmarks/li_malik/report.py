"""The rows, the claims and the page of `benchmarks.li_malik`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.common import intervals, results
from benchmarks.li_malik import paper_2016, paper_2017
from benchmarks.li_malik.optimizers import DETERMINISTIC, STOCHASTIC

Row = Mapping[str, Any]

COLUMNS_2016 = {
    "problem": "functions",
    "rival": "rival, tuned",
    "ahead": f"share of {paper_2016.HORIZON} steps ahead",
    "ahead_later": f"of steps {paper_2016.HORIZON} to {paper_2016.STEPS}",
    "at_5": "margin at step 5",
    "at_20": "at step 20",
    f"at_{paper_2016.HORIZON}": f"at step {paper_2016.HORIZON}",
    f"at_{paper_2016.STEPS}": f"at step {paper_2016.STEPS}",
    "wins": f"functions won at step {paper_2016.HORIZON}",
    "rival_diverged": "rival: runs that end above the start",
    "diverged": "learned: runs that end above the start",
}
COLUMNS_2017 = {
    "setting": "net",
    "optimizer": "optimizer",
    **{data: data for data in (paper_2017.TRAINED, *paper_2017.TRANSFERS)},
    "transfer": "mean of transfers",
    "transfer_interval": "±",
    "later": f"steps {paper_2017.HORIZON} to {paper_2017.STEPS}",
    "later_interval": "± ",
    "paper": "the paper's result",
}


def summarize_2016(curves: Sequence[paper_2016.Curves]) -> list[dict[str, Any]]:
    """One row for each problem and rival."""
    papers = {problem.name: problem.paper for problem in paper_2016.PROBLEMS}
    horizon, steps = paper_2016.HORIZON, paper_2016.STEPS
    rows: list[dict[str, Any]] = []
    for each in curves:
        learned = each.objectives[paper_2016.LEARNED]
        for name in DETERMINISTIC:
            margin, objectives = each.margin(name), each.objectives[name]
            means = margin.mean(axis=0)
            rows.append(
                {
                    "part": "2016",
                    "problem": each.problem,
                    "rival": name,
                    "constants": each.constants[name],
                    "ahead": float(np.mean(means[1 : horizon + 1] > 0.0)),
                    "ahead_later": float(np.mean(means[horizon + 1 :] > 0.0)),
                    **{
                        f"at_{step}": _with_interval(margin[:, step])
                        for step in (5, 20, horizon, steps)
                    },
                    "wins": float(np.mean(margin[:, horizon] > 0.0)),
                    "rival_diverged": float(np.mean(objectives[:, -1] > objectives[:, 0])),
                    "diverged": float(np.mean(learned[:, -1] > learned[:, 0])),
                    "paper": papers[each.problem],
                    "margins": means,
                    "victory": each.margin_over_best().mean(axis=0),
                }
            )
    return rows


def _with_interval(values: np.ndarray) -> str:
    half = intervals.half_interval(values)
    return f"{values.mean():.4f}" + ("" if half is None else f" ± {half:.4f}")


def claims_2016(rows: Sequence[Row]) -> list[results.Claim]:
    """One claim per problem and rival but L-BFGS: the learned optimizer is mostly ahead."""
    return [
        results.Claim(
            f"li_malik.{row['problem'].replace(' ', '_')}.{row['rival'].replace(' ', '_')}",
            f"{row['problem']}: share of the first {paper_2016.HORIZON} steps with a positive mean"
            f" margin over {row['rival']}",
            row["ahead"],
            "> 0.5",
        )
        for row in rows
        if row["rival"] != "L-BFGS"
    ]


def summarize_2017(curves: Sequence[paper_2017.Curve]) -> list[dict[str, Any]]:
    """One row for each setting and optimizer."""
    papers = {setting.name: setting.paper for setting in paper_2017.SETTINGS}
    transfers, horizon = paper_2017.TRANSFERS, paper_2017.HORIZON
    rows: list[dict[str, Any]] = []
    for setting, optimizer in dict.fromkeys((each.setting, each.optimizer) for each in curves):
        mine = {
            curve.data: curve
            for curve in curves
            if (curve.setting, curve.optimizer) == (setting, optimizer)
        }
        per_run = {data: curve.mean(0, horizon) for data, curve in mine.items()}
        transfer = np.mean([per_run[data] for data in transfers], axis=0)
        later = np.mean([mine[data].mean(horizon, paper_2017.STEPS) for data in transfers], axis=0)
        rows.append(
            {
                "part": "2017",
                "setting": setting,
                "optimizer": optimizer,
                **{data: float(values.mean()) for data, values in per_run.items()},
                "transfer": float(transfer.mean()),
                "transfer_interval": intervals.half_interval(transfer),
                "later": float(later.mean()),
                "later_interval": intervals.half_interval(later),
                "paper": papers[setting] if optimizer == paper_2017.LEARNED else None,
            }
        )
    return rows


def claims_2017(rows: Sequence[Row]) -> list[results.Claim]:
    """One claim per rival: the learned optimizer is ahead on the transfer problems."""
    name = paper_2017.SETTINGS[0].name
    first = {row["optimizer"]: row for row in rows if row["setting"] == name}
    return [
        results.Claim(
            f"li_malik.transfer.{rival}",
            f"{name}: mean objective over {paper_2017.HORIZON} steps on the transfer problems,"
            f" ratio of the learned optimizer's to that of tuned {rival}",
            first[paper_2017.LEARNED]["transfer"] / first[rival]["transfer"],
            "< 1",
        )
        for rival in STOCHASTIC
    ]


def page(rows: Sequence[Row], command: str) -> str:
    """The page beside the JSON file."""
    early = [row for row in rows if row["part"] == "2016"]
    nets = [row for row in rows if row["part"] == "2017"]
    words = "\n".join(f"- {problem.name}: {problem.paper}." for problem in paper_2016.PROBLEMS)
    return f"""# Optimizers learned by guided policy search

Made by `{command}`.

## 2016: whole vectors

One policy for each family of functions, trained for {paper_2016.HORIZON} steps. The *margin* is the
rival's objective minus the learned optimizer's, as a mean over held-out functions with its 95 %
interval; the learned optimizer is ahead where it is positive. Constants of rivals are the best on
as many training functions. Line searches evaluate the objective several times in a step. The
paper's results:

{words}

{results.markdown_table(early, COLUMNS_2016)}
![Objectives and margins](li_malik_2016.png)

## 2017: nets, coordinate by coordinate

One policy, trained on one net and one data set (MNIST, 48-48, batch 64) for {paper_2017.HORIZON}
steps. Rivals are tuned on the same problem only. Figures are mean objectives over
{paper_2017.HORIZON} steps, with 95 % intervals over runs.

{results.markdown_table(nets, COLUMNS_2017)}
![Objectives](li_malik_2017.png)
"""
