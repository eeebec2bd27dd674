"""The bookkeeping of the benchmark "adaptive", on hand-made losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.online_learning import __main__ as adaptive


def test_cases_are_unlike_what_the_agent_was_trained_on():
    cases = adaptive.cases()

    assert {case.group for case in cases} == set(adaptive.GROUPS)
    assert {case.multiplier for case in cases if case.group == "too_small"} == {0.1}
    assert "rastrigin" not in {case.name for case in cases}
    rosenbrock = next(case.task for case in cases if case.name == "rosenbrock")
    start = rosenbrock.init(jax.random.key(0))
    np.testing.assert_allclose(start, [-1.2, 1.0])
    np.testing.assert_allclose(rosenbrock.loss(start, rosenbrock.batch(None)), 24.2, rtol=1e-5)
    assert float(rosenbrock.loss(jnp.ones(2))) == 0.0


def test_rows_and_claims_by_hand():
    bowl = adaptive.Case("landscapes", "bowl", None)
    diabetes = adaptive.Case("too_small", "diabetes", None, 0.1)
    frozen = np.log([[1.0, 4.0], [1.0, 1.0]])
    rows = [
        *adaptive.case_rows(bowl, frozen, np.log([[1.0, 1.0], [2.0, 0.5]])),
        *adaptive.case_rows(diabetes, frozen, np.log([[4.0, 4.0], [3.0, 3.0]])),
    ]

    assert rows[0]["frozen"] == pytest.approx(2.0)
    assert rows[0]["ratio"] == pytest.approx(0.5)
    better, worse = adaptive.group_rows(rows)
    assert better["ratio"] == pytest.approx(0.5**0.5)
    assert (better["better"], worse["better"]) == (0.5, 0.0)
    assert [claim.holds for claim in adaptive.make_claims([better, worse])] == [True, False]
    panels = adaptive.ratios_figure(rows).axes
    assert [len(panel.lines) for panel in panels] == [3, 3]  # The middle, and dots of each group.
    assert "| landscapes | bowl | 200 | 2 | 1 | 0.5 |" in adaptive.markdown(
        rows, [better, worse], "python -m benchmarks.adaptive"
    )
