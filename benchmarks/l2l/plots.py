"""The picture of `benchmarks.l2l`."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
import numpy as np

from alphaopt_jax import plotting
from benchmarks.l2l.optimizers import LSTM
from benchmarks.l2l.runs import HORIZON, Curve


def curves_figure(curves: Sequence[Curve]) -> Figure:
    """The paper's loss curves, measured here: one panel per problem."""
    by_problem: dict[str, dict[str, np.ndarray]] = {}
    for curve in curves:
        by_problem.setdefault(curve.problem, {})[curve.optimizer] = curve.losses
    return plotting.panels_figure(
        by_problem, title="Learning to learn", emphasized=LSTM, trained=HORIZON
    )
