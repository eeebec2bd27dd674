"""The rows, claims and page of `benchmarks.ablations`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.ablations import variants
from benchmarks.ablations.variants import Variant
from benchmarks.common import results
from benchmarks.common.results import Claim
from benchmarks.zero_tuning import runs, statistics
from benchmarks.zero_tuning.optimizers import ALPHAOPT

BEST_CONSTANT = "without an agent: the best of these for each task and length, with hindsight"
_COLUMNS = {
    "variant": "variant",
    "compared_with": "compared with",
    "ratio": "loss ratio, agent / variant",
    "ratio_interval": "95 % interval",
    "lower": "lower loss than the variant",
}
_MULTIPLIER_COLUMNS = {
    "variant": "variant",
    "ratio": "loss ratio to `learning_rate=1`",
    "ratio_interval": "95 % interval",
}


def rows(
    store: runs.Store, parts: Sequence[Variant], tasks: Sequence[str], settings: runs.Settings
) -> list[dict[str, Any]]:
    """One row for each variant, and one for the best constant of each task and length."""
    logs = {part.name: _logs(store, part, tasks, settings.horizons, settings) for part in parts}
    compared = {part.name: part.compared_with for part in parts if part.name != part.compared_with}
    constants = np.array([logs[variants.constant_name(value)] for value in variants.CONSTANTS])
    best = constants.mean(axis=-1).argmin(axis=0)
    logs[BEST_CONSTANT] = np.take_along_axis(constants, best[None, ..., None], axis=0)[0]
    compared[BEST_CONSTANT] = ALPHAOPT
    return [
        {
            "kind": "part",
            "variant": name,
            "compared_with": other,
            "ratio": statistics.loss_ratio(logs[other], logs[name]),
            "ratio_interval": statistics.ratio_interval(logs[other], logs[name]),
            "lower": statistics.win_fraction(logs[other], logs[name]),
            "losses": np.exp(logs[name].mean(axis=-1)).tolist(),
        }
        for name, other in compared.items()
    ]


def multiplier_rows(
    store: runs.Store,
    multiplied: Sequence[Variant],
    tasks: Sequence[str],
    horizon: int,
    settings: runs.Settings,
) -> list[dict[str, Any]]:
    """One row for each `learning_rate` other than 1."""
    plain = next(part for part in variants.variants() if part.name == ALPHAOPT)
    usual = _logs(store, plain, tasks, (horizon,), settings)
    found = []
    for variant in multiplied:
        ours = _logs(store, variant, tasks, (horizon,), settings)
        found.append(
            {
                "kind": "multiplier",
                "variant": variant.name,
                "ratio": statistics.loss_ratio(ours, usual),
                "ratio_interval": statistics.ratio_interval(ours, usual),
            }
        )
    return found


def _logs(
    store: runs.Store,
    variant: Variant,
    tasks: Sequence[str],
    horizons: Sequence[int],
    settings: runs.Settings,
) -> np.ndarray:
    """Logarithms of the training losses, `float[tasks, horizons, seeds]`."""

    def log(task: str, horizon: int, seed: int) -> float:
        spec = variant.spec
        run = store[runs.Key(task, spec.name, None, horizon, seed, spec.version)]
        return statistics.log_loss(run["train"], run["initial"])

    return np.array(
        [
            [[log(task, horizon, seed) for seed in settings.seeds] for horizon in horizons]
            for task in tasks
        ]
    )


def make_claims(rows: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """The claims: the agent and each of its parts lower the loss."""
    ratios = {row["variant"]: row["ratio"] for row in rows}
    constants = [ratios[variants.constant_name(value)] for value in variants.CONSTANTS]
    claims = [
        Claim(
            "ablations.constant",
            "loss ratio of the agent to the best single constant log rate in its coordinates",
            max(constants),
            "<= 0.92",
        ),
        Claim(
            "ablations.hindsight",
            "loss ratio to the best constant for each task and length, with hindsight",
            ratios[BEST_CONSTANT],
            "<= 1",
        ),
        Claim(
            "ablations.rotation",
            "loss ratio to the same agent in the parameters' coordinates",
            ratios[variants.OWN_COORDINATES],
            "< 1",
        ),
        Claim(
            "ablations.average",
            "loss ratio of averaged to last parameters, number of steps not given",
            ratios[variants.LAST_PARAMS],
            "< 1",
        ),
    ]
    return claims + [
        Claim(
            f"ablations.multiplier.{value:g}",
            f"loss ratio of `learning_rate={value:g}` to 1 after 2,000 steps on the cheap tasks",
            ratios[f"learning_rate={value:g}"],
            "<= 1.15",
        )
        for value in variants.MULTIPLIERS
    ]


def part_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of parts."""
    return results.markdown_table(_shown(rows, "part"), _COLUMNS)


def multiplier_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of values of `learning_rate`."""
    return results.markdown_table(_shown(rows, "multiplier"), _MULTIPLIER_COLUMNS)


def _shown(rows: Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [
        dict(row) | {"ratio_interval": "{:.2f} to {:.2f}".format(*row["ratio_interval"])}
        for row in rows
        if row["kind"] == kind
    ]


def page(rows: Sequence[Mapping[str, Any]], command: str) -> str:
    """The whole page."""
    return f"""# Ablations

Made by `{command}`. Final training losses on the tasks of the test suite after 200 and 2,000 steps,
two seeds; geometric means of ratios, bootstrap intervals over tasks and seeds. A ratio below 1
means that the part lowers the loss.

{part_table(rows)}
## `learning_rate` far from 1

The agent does not observe this factor of all its rates. Cheap tasks, 2,000 steps.

{multiplier_table(rows)}"""
