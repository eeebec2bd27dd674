"""The bookkeeping of the benchmark "robustness"."""

import numpy as np
import optax
import pytest

from benchmarks.robustness import __main__ as robustness
from benchmarks.robustness import faults


def _row(optimizer, fault, **more):
    return {
        "optimizer": optimizer,
        "fault": fault,
        "finite": True,
        "kept": 0.95,
        "least_kept": 0.92,
        "worst": 1.0,
        "skipped": 1 if optimizer == robustness.ALPHAOPT else None,
        "unusable": 1,
        "passing": True,
    } | more


@pytest.mark.slow
def test_a_row_for_each_fault_says_what_became_of_the_training():
    rows = robustness.try_all("SGD", optax.sgd(0.1), (0,))

    assert [row["fault"] for row in rows] == [fault.name for fault in faults.FAULTS]
    by_name = {row["fault"]: row for row in rows}
    lost = by_name["a gradient that is NaN, once"]
    assert (lost["finite"], lost["kept"], lost["skipped"]) == (False, -np.inf, None)
    # Gradient descent does not look at the loss.
    assert by_name["a constant loss, to the end"]["kept"] == 1.0
    uphill = by_name["gradients uphill, 50 steps"]
    assert uphill["kept"] < 1.0
    assert uphill["worst"] >= 1.0


def test_claims_are_of_alphaopt_alone():
    good = _row(robustness.ALPHAOPT, "one")
    lost = _row(robustness.ADAM, "one", finite=False, kept=-np.inf, least_kept=-np.inf)

    def held(*rows):
        return [claim.holds for claim in robustness.make_claims(rows)]

    assert held(good, lost) == [True, True, True]
    assert held(good, good | {"finite": False}) == [False, True, True]
    assert held(good, good | {"skipped": 0}) == [True, False, True]
    assert held(good, good | {"least_kept": 0.5}) == [True, True, False]
    assert held(good, good | {"least_kept": 0.5, "passing": False}) == [True, True, True]


def test_table_and_picture():
    rows = [
        _row(robustness.ALPHAOPT, "one"),
        _row(robustness.ALPHAOPT, "two", kept=-3.0),
        _row(robustness.ADAM, "one", finite=False, kept=-np.inf),
        _row(robustness.ADAM, "two"),
    ]

    table = robustness.table(rows)

    assert "| one | 1 | 0.95 | **lost** |" in table
    assert table in robustness.page(rows, "python -m benchmarks.robustness")
    (panel,) = robustness.kept_figure(rows).axes
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in panel.lines[:4]]
    assert points == [(0.95, 0), (pytest.approx(-0.1), 1), (pytest.approx(-0.1), 0), (0.95, 1)]
