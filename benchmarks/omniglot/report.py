"""The tables, the claims and the page of `benchmarks.omniglot`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alphaopt_jax.meta.few_shot import FewShotConfig
from benchmarks.common import intervals, results
from benchmarks.omniglot.learning import PLANS, Plan
from benchmarks.omniglot.optimizers import (
    ADAM,
    LEARNED,
    LEARNED_RATES,
    OWN,
    PRETRAINED,
    RANDOM,
    SGD,
)
from benchmarks.omniglot.runs import Run

Row = Mapping[str, Any]
MAIN = next(iter(PLANS))
"""Name of the main protocol."""
_FEW_SHOT_BARS = {
    "5-way 1-shot": 97.0,
    "5-way 5-shot": 99.0,
    "20-way 1-shot": 90.0,
    "20-way 5-shot": 97.0,
}
_PUBLISHED = """\
| | 5-way 1-shot | 5-way 5-shot | 20-way 1-shot | 20-way 5-shot |
| --- | --- | --- | --- | --- |
| MAML (Finn et al. 2017) | 98.7 | 99.9 | 95.8 | 98.9 |
| Meta-SGD (Li et al. 2017) | 99.53 | 99.93 | 95.93 | 98.97 |
| Reptile (Nichol et al. 2018) | 95.4 | 98.9 | 88.1 | 96.7 |
"""

COLUMNS = {
    "start": "start",
    "optimizer": "optimizer",
    "chosen": "rate",
    "accuracy": "accuracy, %",
    "interval": "±",
    "area": "mean over the steps, %",
    "longer": "after more steps, %",
}


def summarize(runs: Mapping[str, Sequence[Run]], plans: Mapping[str, Plan]) -> list[dict[str, Any]]:
    """One row for each optimizer of each protocol; accuracies are in percent."""
    rows: list[dict[str, Any]] = []
    for name, each in runs.items():
        plan = plans[name]
        for one in each:
            final = 100.0 * one.curves.accuracy(plan.ours.num_steps)
            longer = None if one.longer is None else 100.0 * one.longer.accuracies[:, -1]
            rows.append(
                {
                    "part": "test",
                    "protocol": name,
                    "start": one.spec.start,
                    "optimizer": one.spec.optimizer,
                    "chosen": one.chosen,
                    "accuracy": float(final.mean()),
                    "interval": intervals.half_interval(final),
                    "area": float(100.0 * one.curves.mean_accuracy(plan.ours.num_steps).mean()),
                    "longer": None if longer is None else float(longer.mean()),
                    "longer_interval": None if longer is None else intervals.half_interval(longer),
                    "episodes": len(final),
                    "steps": one.curves.steps,
                    "curve": 100.0 * one.curves.accuracies.mean(axis=0),
                }
            )
    return rows


def gain_table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Gains from initial parameters, from the optimizer, and from both, for each protocol."""
    table = []
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        cells = _by_pair(rows, protocol)
        neither, initialization = (_best_tuned(cells, start) for start in (RANDOM, LEARNED))
        table.append(
            {
                "protocol": protocol,
                "neither": neither,
                "initialization": initialization - neither,
                "optimizer": cells[RANDOM, OWN]["accuracy"] - neither,
                "both": cells[LEARNED, OWN]["accuracy"] - neither,
            }
        )
    return table


GAIN_COLUMNS = {
    "protocol": "protocol",
    "neither": "SGD or Adam, tuned, random start, %",
    "initialization": "learned start only, points",
    "optimizer": "meta-trained AlphaOpt only, points",
    "both": "both, points",
}


def few_shot_table(rows: Sequence[Row]) -> str:
    """Accuracies of all few-shot protocols with their intervals, the best in bold.

    The better one of SGD and Adam is shown for each start.
    """
    protocols = [name for name in dict.fromkeys(row["protocol"] for row in rows) if name != MAIN]
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for protocol in protocols:
        cells: dict[tuple[str, str], Row] = {}
        for (start, optimizer), row in _by_pair(rows, protocol).items():
            key = start, "SGD or Adam, tuned" if optimizer in (SGD, ADAM) else optimizer
            if key not in cells or row["accuracy"] > cells[key]["accuracy"]:
                cells[key] = row
        best = max(row["accuracy"] for row in cells.values())
        for (start, optimizer), row in cells.items():
            line = lines.setdefault((start, optimizer), {"start": start, "optimizer": optimizer})
            accuracy = f"{row['accuracy']:.1f}"
            if row["accuracy"] == best:
                accuracy = f"**{accuracy}**"
            line[protocol] = f"{accuracy} ± {row['interval']:.1f}"
    columns = {"start": "start", "optimizer": "optimizer"} | {name: name for name in protocols}
    return results.markdown_table(list(lines.values()), columns)


def make_claims(rows: Sequence[Row]) -> list[results.Claim]:
    """Claims about AlphaOpt, meta-trained on Omniglot, on alphabets that were not trained on."""
    protocols = list(dict.fromkeys(row["protocol"] for row in rows))
    claims = _main_claims(_by_pair(rows, MAIN)) if MAIN in protocols else []
    for protocol, bar in _FEW_SHOT_BARS.items():
        if protocol in protocols:
            claims += _few_shot_claims(protocol, _by_pair(rows, protocol), bar)
    return claims


def _main_claims(cells: Mapping[tuple[str, str], Row]) -> list[results.Claim]:
    own, alone = cells[LEARNED, OWN], cells[RANDOM, OWN]
    baselines = [row for (_, optimizer), row in cells.items() if optimizer not in (OWN, PRETRAINED)]
    best = max(baselines, key=lambda row: row["accuracy"])
    claims = []

    def claim(name: str, text: str, value: float, bar: str) -> None:
        claims.append(results.Claim(f"omniglot.{name}", f"{MAIN}: {text}", value, bar))

    claim("multi_shot", f"accuracy of {OWN}, learned start", own["accuracy"], ">= 80")
    claim(
        "multi_shot.reptile",
        f"lead of {OWN} over Reptile, in points",
        own["accuracy"] - _best_tuned(cells, "Reptile"),
        ">= 5",
    )
    claim(
        "multi_shot.adam",
        f"lead of {OWN} over tuned Adam from the same start, in points",
        own["accuracy"] - cells[LEARNED, ADAM]["accuracy"],
        ">= 5",
    )
    claim(
        "multi_shot.best",
        f"lead of {OWN} over the best baseline ({best['start']}, {best['optimizer']}), in"
        " intervals of the baseline",
        (own["accuracy"] - best["accuracy"]) / best["interval"],
        "> 1",
    )
    for name in (ADAM, SGD):
        baseline = cells[RANDOM, name]
        claim(
            f"multi_shot.random.{name.lower()}",
            f"random start: lead of {OWN} over tuned {name}, in points",
            alone["accuracy"] - baseline["accuracy"],
            ">= 3",
        )
        claim(
            f"multi_shot.random.{name.lower()}.steps",
            f"random start: share of the steps in which {OWN} reaches the accuracy of tuned {name}",
            _share_of_steps(alone, baseline["accuracy"]),
            "<= 0.5",
        )
    if own["longer"] is not None:
        claim(
            "multi_shot.longer",
            "learned start: ratio of the accuracy after five times the steps of meta-training to"
            " that after these steps",
            own["longer"] / own["accuracy"],
            ">= 0.98",
        )
    return claims


def _few_shot_claims(
    protocol: str, cells: Mapping[tuple[str, str], Row], bar: float
) -> list[results.Claim]:
    own, baseline = cells[LEARNED, OWN], cells["Meta-SGD", LEARNED_RATES]
    name = f"omniglot.{protocol.replace(' ', '_')}"
    return [
        results.Claim(
            name,
            f"{protocol}: accuracy of {OWN}, learned start",
            own["accuracy"],
            f">= {bar:g}",
        ),
        results.Claim(
            f"{name}.meta_sgd",
            f"{protocol}: lead of {OWN} over Meta-SGD, in intervals of the latter",
            (own["accuracy"] - baseline["accuracy"]) / baseline["interval"],
            ">= -1",
        ),
    ]


def _share_of_steps(row: Row, accuracy: float) -> float:
    """Share of the steps after which a curve first reaches an accuracy; infinite if it does not."""
    reached = np.flatnonzero(np.asarray(row["curve"]) >= accuracy)
    return float(row["steps"][reached[0]] / row["steps"][-1]) if len(reached) else np.inf


def _best_tuned(cells: Mapping[tuple[str, str], Row], start: str) -> float:
    tuned = [cells[start, name]["accuracy"] for name in (SGD, ADAM) if (start, name) in cells]
    return float(max(tuned))


def _by_pair(rows: Sequence[Row], protocol: str) -> dict[tuple[str, str], Row]:
    return {(row["start"], row["optimizer"]): row for row in rows if row["protocol"] == protocol}


def _meta_training(config: FewShotConfig) -> str:
    return f"{config.total_rounds} rounds of {config.meta.groups * config.meta.copies} episodes"


def page(rows: Sequence[Row], plans: Mapping[str, Plan], source: str, command: str) -> str:
    """The page beside the JSON file."""
    sections = []
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        plan = plans[protocol]
        mine = [row for row in rows if row["protocol"] == protocol]
        more = f"; the last column after {plan.longer}" if plan.longer else ""
        sections.append(
            f"## {protocol}\n\n{plan.ours.num_steps} steps on each of {mine[0]['episodes']}"
            f" episodes{more}. Convolutions have {plan.ours.width} filters. Initial parameters were"
            f" learned from {plan.episodes:,} episodes, {plan.ours.initialization_batch_size} per"
            f" update; the agent learned in {_meta_training(plan.ours)}, and for random starts in"
            f" {_meta_training(plan.alone)}.\n\n" + results.markdown_table(mine, COLUMNS)
        )
    body = "\n".join(sections)
    few_shots = ""
    if any(row["protocol"] in _FEW_SHOT_BARS for row in rows):
        few_shots = (
            f"## Few shots, side by side\n\n{few_shot_table(rows)}\n"
            "The few-shot protocols were meta-trained and tested on one NVIDIA H200, and so was the"
            " agent for\nrandom starts of the main protocol.\n\n"
            "![Learning curves, few shots](omniglot_few_shots.png)\n\n"
        )
    return f"""# Omniglot: new characters from few drawings

Made by `{command}`. Characters: {source}.

Meta-training uses background alphabets, and every choice is made on validation alphabets; results
are on evaluation alphabets. During meta-training, all drawings of an episode are rotated together
by 0 to 3 quarter turns, which gives four times as many alphabets. During a meta-test only the
network changes: the agent's parameters are compared bit by bit before and after. Batch
normalization uses statistics of the support set only, so queries do not influence each other (no
transduction).
Learning rates of SGD and Adam are the best of five on validation alphabets. Intervals are 95 %
intervals of the mean over episodes.
"{PRETRAINED}" is the pretrained agent `diagonal`, which was not trained on images of 28x28 pixels.
"{OWN}" continues from it, alternating with the initial parameters and with one factor per parameter
of the network's rates, similar to the learned rates of Meta-SGD; the other optimizers start from
the same initial parameters without these factors. The checkpoint with the best validation accuracy
is tested (the last picture shows all of them), even if it is one from before the agent's own
meta-training.

## Gains from the start and from the optimizer

{results.markdown_table(gain_table(rows), GAIN_COLUMNS)}
![Learning curves](omniglot.png)

{few_shots}{body}
Published results, for orientation. For few shots: networks with 64 filters, trained on up to two
million episodes. Reptile is without transduction and was trained with 10 to 15 drawings of a
character; MAML is with transduction. For the multi-shot protocol (Flennerhag et al. 2019): Reptile
70.8, Leap 75.5, fine-tuning 76.4, Warp-Leap 83.6.

{_PUBLISHED}
![Accuracy over meta-training](omniglot_learning.png)
"""
