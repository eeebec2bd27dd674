"""Seconds to where a tuned cosine Adam ends."""

import pytest

from benchmarks.common import results
from benchmarks.zero_tuning import optimizers, runs, seconds


def _row(task, alphaopt, no_horizon):
    relative = {optimizers.ALPHAOPT: alphaopt, optimizers.NO_HORIZON: no_horizon}
    row = {"task": task, "parameters": 10, "adam_milliseconds": 1.0}
    for mode, value in relative.items():
        row |= {f"{mode} milliseconds": 2.0, f"{mode} steps": 100, f"{mode} seconds": value}
    return row


def test_claims_are_shares_of_tasks_and_a_loss_not_reached_counts_against():
    rows = [_row("one", 0.4, 0.4), _row("two", 0.5, None), _row("three", 0.6, 2.0)]

    claims = seconds.make_claims(rows)

    assert [claim.value for claim in claims] == [pytest.approx(2 / 3), pytest.approx(1 / 3)]
    assert [claim.holds for claim in claims] == [True, False]
    assert "–" in seconds.table(rows)


def test_steps_are_those_of_the_stored_curves():
    store = runs.open_store(results.RESULTS / "zero_tuning_runs.jsonl")
    task = "diabetes"
    loss = seconds.target(store, task)

    steps, reached = seconds.steps_needed(store, optimizers.ALPHAOPT, task, loss)
    fewer, _ = seconds.steps_needed(store, optimizers.ALPHAOPT, task, 2.0 * loss)

    assert reached
    assert fewer <= steps <= runs.HORIZONS[-1]
