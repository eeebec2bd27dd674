"""The tables, the claims and the page of `benchmarks.omniglot`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alphaopt_jax.meta.few_shot import FewShotConfig
from benchmarks.common import intervals, results
from benchmarks.omniglot.learning import PLANS, Plan
from benchmarks.omniglot.optimizers import ADAM, GENERAL, LEARNED, OWN, RANDOM, SGD, Tested

Row = Mapping[str, Any]
MAIN = next(iter(PLANS))
"""The main protocol's name."""
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
    "area": "mean along the way, %",
    "longer": "after more steps, %",
}


def summarize(
    tested: Mapping[str, Sequence[Tested]], plans: Mapping[str, Plan]
) -> list[dict[str, Any]]:
    """A row for each contender of each protocol; accuracies are in percent."""
    rows: list[dict[str, Any]] = []
    for name, each in tested.items():
        plan = plans[name]
        for one in each:
            final = 100.0 * one.curves.accuracy(plan.ours.num_steps)
            longer = None if one.longer is None else 100.0 * one.longer.accuracies[:, -1]
            rows.append(
                {
                    "part": "test",
                    "protocol": name,
                    "start": one.contender.start,
                    "optimizer": one.contender.optimizer,
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
    """What initial parameters give, what the optimizer gives, and both, protocol by protocol."""
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
    "initialization": "learned start alone, points",
    "optimizer": "frozen agent alone, points",
    "both": "both, points",
}


def few_shot_table(rows: Sequence[Row]) -> str:
    """All few-shot protocols side by side: accuracies with their intervals, the best in bold.

    Of SGD and Adam from one start the better is shown.
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
    """What the frozen agent is to reach, on characters that nobody has trained on."""
    claims = []
    protocols = list(dict.fromkeys(row["protocol"] for row in rows))
    if MAIN in protocols:
        cells = _by_pair(rows, MAIN)
        own, alone = cells[LEARNED, OWN], cells[RANDOM, OWN]
        reptile = _best_tuned(cells, "Reptile")
        rivals = [row for (_, optimizer), row in cells.items() if optimizer not in (OWN, GENERAL)]
        best = max(rivals, key=lambda row: row["accuracy"])

        def claim(name: str, text: str, value: float, bar: str) -> None:
            claims.append(results.Claim(f"omniglot.{name}", f"{MAIN}: {text}", value, bar))

        claim("multi_shot", "accuracy of the frozen agent, learned start", own["accuracy"], ">= 80")
        claim(
            "multi_shot.reptile",
            "the frozen agent's lead over Reptile, in points",
            own["accuracy"] - reptile,
            ">= 5",
        )
        claim(
            "multi_shot.adam",
            "its lead over tuned Adam from the same start, in points",
            own["accuracy"] - cells[LEARNED, ADAM]["accuracy"],
            ">= 5",
        )
        claim(
            "multi_shot.best",
            f"its lead over the best of all rivals ({best['start']}, {best['optimizer']}), in"
            " intervals of the latter",
            (own["accuracy"] - best["accuracy"]) / best["interval"],
            "> 1",
        )
        for name in (ADAM, SGD):
            rival = cells[RANDOM, name]
            claim(
                f"multi_shot.random.{name.lower()}",
                f"random start: the frozen agent's lead over tuned {name}, in points",
                alone["accuracy"] - rival["accuracy"],
                ">= 3",
            )
            claim(
                f"multi_shot.random.{name.lower()}.steps",
                f"random start: share of tuned {name}'s steps that the frozen agent needs for as"
                " much",
                _share_of_steps(alone, rival["accuracy"]),
                "<= 0.5",
            )
        if own["longer"] is not None:
            claim(
                "multi_shot.longer",
                "learned start: accuracy after five times the steps over that after those that the"
                " agent was trained for",
                own["longer"] / own["accuracy"],
                ">= 0.98",
            )
    for protocol, bar in _FEW_SHOT_BARS.items():
        if protocol not in protocols:
            continue
        cells = _by_pair(rows, protocol)
        own, rival = cells[LEARNED, OWN], cells["Meta-SGD", "its rates"]
        name = f"omniglot.{protocol.replace(' ', '_')}"
        text = f"{protocol}: accuracy of the frozen agent, learned start"
        claims.append(results.Claim(name, text, own["accuracy"], f">= {bar:g}"))
        claims.append(
            results.Claim(
                f"{name}.meta_sgd",
                f"{protocol}: the frozen agent's lead over Meta-SGD, in intervals of the latter",
                (own["accuracy"] - rival["accuracy"]) / rival["interval"],
                ">= -1",
            )
        )
    return claims


def _share_of_steps(row: Row, accuracy: float) -> float:
    """Of all steps, those after which a curve has first come so far; infinite if it never has."""
    reached = np.flatnonzero(np.asarray(row["curve"]) >= accuracy)
    return float(row["steps"][reached[0]] / row["steps"][-1]) if len(reached) else np.inf


def _best_tuned(cells: Mapping[tuple[str, str], Row], start: str) -> float:
    tuned = [cells[start, name]["accuracy"] for name in (SGD, ADAM) if (start, name) in cells]
    return float(max(tuned))


def _by_pair(rows: Sequence[Row], protocol: str) -> dict[tuple[str, str], Row]:
    return {(row["start"], row["optimizer"]): row for row in rows if row["protocol"] == protocol}


def _learning(config: FewShotConfig) -> str:
    return f"{config.total_rounds} rounds of {config.meta.groups * config.meta.copies} episodes"


def page(rows: Sequence[Row], plans: Mapping[str, Plan], source: str, command: str) -> str:
    """The page beside the JSON file."""
    sections = []
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        plan = plans[protocol]
        mine = [row for row in rows if row["protocol"] == protocol]
        more = f"; the last column after {plan.longer}" if plan.longer else ""
        sections.append(
            f"## {protocol}\n\n{plan.ours.num_steps} steps on each episode, {mine[0]['episodes']}"
            f" episodes{more}. Convolutions of {plan.ours.width} filters. Initial parameters were"
            f" learned from {plan.episodes:,} episodes, {plan.ours.initialization_batch_size} a"
            f" move, the agent in {_learning(plan.ours)}, and from fresh networks in"
            f" {_learning(plan.alone)}.\n\n" + results.markdown_table(mine, COLUMNS)
        )
    body = "\n".join(sections)
    few_shots = ""
    if any(row["protocol"] in _FEW_SHOT_BARS for row in rows):
        few_shots = (
            f"## Few shots, side by side\n\n{few_shot_table(rows)}\n"
            "What the project keeps of these protocols was learned and tested on one NVIDIA H200;"
            " the\nmain protocol's agent for fresh networks learned there too.\n\n"
            "![Learning curves, few shots](omniglot_few_shots.png)\n\n"
        )
    return f"""# Omniglot: new characters from few drawings

Made by `{command}`. Characters: {source}.

Everything is learned on background alphabets, and tested on evaluation alphabets, which neither
learning nor any choice has seen. While any of the methods learns, episodes of one alphabet are
turned as a whole by 0 to 3 quarters, as if there were four times as many alphabets. During a
meta-test only the network changes: the agent's parameters are compared bit by bit before and after.
Batch normalisation takes its statistics from the support set alone; queries do not see each other
(no transduction). Rates of SGD and Adam are the best of five on validation alphabets. Intervals are
of the mean over episodes, 95 %.
"{GENERAL}" is the general agent, which has never seen a picture of 28x28 pixels. "{OWN}" went on
from it, in turns with the initial parameters, with which a factor of every parameter's rate is
learned, as Meta-SGD learns the rates themselves; the other optimizers start from the same
parameters without these factors. Of what came out of each part of a turn the best on validation
alphabets is tested (the last picture shows all of them), be it from before the agent's own
learning.

## What the start gives, and what the optimizer

{results.markdown_table(gain_table(rows), GAIN_COLUMNS)}
![Learning curves](omniglot.png)

{few_shots}{body}
Published figures, to say where the field stands: of networks of 64 filters, for few shots as here,
that learned from up to two million episodes. Reptile's are without transduction, and of networks
that learned from 10 to 15 drawings of a character; MAML's are with it. Of the multi-shot protocol
(Flennerhag et al. 2019): Reptile 70.8, Leap 75.5, fine-tuning 76.4, Warp-Leap 83.6.

{_PUBLISHED}
![Accuracy over meta-training](omniglot_learning.png)
"""
