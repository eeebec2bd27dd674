"""Tasks, rows and claims of `benchmarks.online_learning`, on hand-made losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.online_learning import plots, report, tasks


def test_cases_are_unlike_the_training_tasks():
    cases = tasks.cases()

    assert {case.group for case in cases} == set(tasks.GROUPS)
    assert {case.learning_rate for case in cases if case.group == "too_small"} == {0.1}
    assert "rastrigin" not in {case.name for case in cases}
    rosenbrock = next(case.task for case in cases if case.name == "rosenbrock")
    start = rosenbrock.init(jax.random.key(0))
    np.testing.assert_allclose(start, [-1.2, 1.0])
    np.testing.assert_allclose(rosenbrock.loss(start, rosenbrock.batch(None)), 24.2, rtol=1e-5)
    assert float(rosenbrock.loss(jnp.ones(2))) == 0.0


def test_rows_and_claims_by_hand():
    bowl = tasks.Case("landscapes", "bowl", None)
    diabetes = tasks.Case("too_small", "diabetes", None, 0.1)
    frozen = np.log([[1.0, 4.0], [1.0, 1.0]])
    rows = [
        *report.case_rows(bowl, frozen, np.log([[1.0, 1.0], [2.0, 0.5]])),
        *report.case_rows(diabetes, frozen, np.log([[4.0, 4.0], [3.0, 3.0]])),
    ]

    assert rows[0]["frozen"] == pytest.approx(2.0)
    assert rows[0]["ratio"] == pytest.approx(0.5)
    better, worse = report.group_rows(rows)
    assert better["ratio"] == pytest.approx(0.5**0.5)
    assert (better["better"], worse["better"]) == (0.5, 0.0)
    assert [claim.holds for claim in report.make_claims([better, worse])] == [True, False]
    panels = plots.ratios_figure(rows).axes
    assert [len(panel.lines) for panel in panels] == [
        3,
        3,
    ]  # The line at 1, dots by group.
    assert "| landscapes | bowl | 200 | 2 | 1 | 0.5 |" in report.page(
        rows, [better, worse], "python -m benchmarks.online_learning"
    )
