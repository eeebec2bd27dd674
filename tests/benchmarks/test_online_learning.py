"""Tasks, rows and claims of `benchmarks.online_learning`, on hand-made losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.online_learning import plots, report, runs, tasks


def test_tasks_are_those_of_validation_and_of_the_suite():
    landscapes = {case.name: case.task for case in tasks.landscapes()}
    networks = [case.name for case in tasks.networks()]

    assert len(landscapes) == 10
    assert "rastrigin" not in landscapes
    assert networks[0] == "wide_linear_regression"
    assert networks[-1] == "diabetes"
    assert len(networks) >= 13
    rosenbrock = landscapes["rosenbrock"]
    start = rosenbrock.init(jax.random.key(0))
    np.testing.assert_allclose(start, [-1.2, 1.0])
    np.testing.assert_allclose(rosenbrock.loss(start, rosenbrock.batch(None)), 24.2, rtol=1e-5)
    assert float(rosenbrock.loss(jnp.ones(2))) == 0.0


def _rows():
    """Two tasks at multipliers of 0.1 and 1; learning closes one gap of two."""
    losses = {
        "diabetes": ([[16.0, 16.0], [1.0, 1.0]], [[2.0, 2.0], [0.5, 0.5]]),
        "wine": ([[4.0, 4.0], [1.0, 1.0]], [[4.0, 4.0], [1.0, 1.0]]),
    }
    return [
        row
        for task, pair in losses.items()
        for row in report.rate_rows(task, "fresh agent", (0.1, 1.0), *map(np.log, pair))
    ]


def test_gaps_by_hand():
    small, usual = report.gap_rows(_rows())

    assert (small["multiplier"], usual["multiplier"]) == (0.1, 1.0)
    assert small["frozen"] == pytest.approx(8.0)
    assert small["learning"] == pytest.approx(8.0**0.5)
    assert (small["gaps"], small["closed"], usual["gaps"]) == (2, 1, 0)
    # (log 2 + log 4) / (log 16 + log 4).
    assert small["share"] == pytest.approx(0.5)
    assert usual["learning"] == pytest.approx(0.5**0.5)


def test_claims_table_picture_and_page():
    rows = _rows()
    landscapes = report.landscape_rows(
        "bowl", np.log([[1.0, 4.0], [1.0, 1.0]]), np.log([[1.0, 1.0], [2.0, 0.5]])
    )
    summary = report.landscape_summary(landscapes)

    assert landscapes[0]["ratio"] == pytest.approx(0.5)
    assert summary["better"] == 0.5
    claims = {claim.name: claim for claim in report.make_claims(report.gap_rows(rows), summary)}
    assert claims["online_learning.fresh.closed"].value == 0.5
    assert claims["online_learning.fresh.usual"].holds
    assert not claims["online_learning.fresh.times_0.1"].holds
    (panel,) = plots.multipliers_figure(rows).axes
    assert len(panel.lines) == 7  # Two tasks and their mean, without and with learning, and 1.
    page = report.page(landscapes, rows, "python -m benchmarks.online_learning")
    assert "| fresh agent | 0.1 | 8 | 2.83 |" in page
    assert "| 1 of 2 | 50 % |" in page
    assert "| bowl | 200 | 2 | 1 | 0.5 |" in page


def test_finished_trainings_are_not_repeated(tmp_path, monkeypatch):
    calls = []

    def train(training, case):
        calls.append(training)
        return np.array([[0.5, -0.25]])

    monkeypatch.setattr(runs, "_train", train)
    case = tasks.networks()[0]
    for _ in range(2):
        store = runs.open_store(tmp_path / "runs.jsonl")
        found = runs.with_multipliers(case, "base", True, 2, store)
        np.testing.assert_array_equal(found, [[0.5, -0.25]])

    assert [(each.task, each.agent, each.learn) for each in calls] == [
        ("wide_linear_regression", "base", True)
    ]
