"""Rows, claims, table and picture of `benchmarks.robustness`."""

import numpy as np
import optax
import pytest

from benchmarks.robustness import faults, optimizers, plots, report


def _row(optimizer, fault, **more):
    return {
        "optimizer": optimizer,
        "fault": fault,
        "finite": True,
        "kept": 0.95,
        "least_kept": 0.92,
        "worst": 1.0,
        "skipped": 1 if optimizer == optimizers.ALPHAOPT else None,
        "unusable": 1,
        "passing": True,
    } | more


@pytest.mark.slow
def test_there_is_a_row_for_each_fault():
    rows = report.optimizer_rows("SGD", optax.sgd(0.1), (0,))

    assert [row["fault"] for row in rows] == [fault.name for fault in faults.FAULTS]
    by_name = {row["fault"]: row for row in rows}
    lost = by_name["NaN in one gradient, once"]
    assert (lost["finite"], lost["kept"], lost["skipped"]) == (False, -np.inf, None)
    # Gradient descent does not depend on the loss.
    assert by_name["constant loss, to the end"]["kept"] == 1.0
    opposite = by_name["gradients with opposite sign, 50 steps"]
    assert opposite["kept"] < 1.0
    assert opposite["worst"] >= 1.0


def test_claims_concern_alphaopt_only():
    good = _row(optimizers.ALPHAOPT, "one")
    lost = _row(optimizers.ADAM, "one", finite=False, kept=-np.inf, least_kept=-np.inf)

    def held(*rows):
        return [claim.holds for claim in report.make_claims(rows)]

    assert held(good, lost) == [True, True, True]
    assert held(good, good | {"finite": False}) == [False, True, True]
    assert held(good, good | {"skipped": 0}) == [True, False, True]
    assert held(good, good | {"least_kept": 0.5}) == [True, True, False]
    assert held(good, good | {"least_kept": 0.5, "passing": False}) == [True, True, True]


def test_table_and_picture():
    rows = [
        _row(optimizers.ALPHAOPT, "one"),
        _row(optimizers.ALPHAOPT, "two", kept=-3.0),
        _row(optimizers.ADAM, "one", finite=False, kept=-np.inf),
        _row(optimizers.ADAM, "two"),
    ]

    table = report.table(rows)

    assert "| one | 1 | 0.95 | **lost** |" in table
    assert table in report.page(rows, "python -m benchmarks.robustness")
    (panel,) = plots.kept_figure(rows).axes
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in panel.lines[:4]]
    assert points == [(0.95, 0), (pytest.approx(-0.1), 1), (pytest.approx(-0.1), 0), (0.95, 1)]
