"""Confidence intervals of means over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def half_interval(values: Sequence[float] | np.ndarray) -> float | None:
    """Half the width of the 95 % Student interval of the mean; None for fewer than two values.

    Example:
      >>> round(half_interval([1.0, 2.0, 3.0]), 3)
      2.484
    """
    if len(values) < 2:
        return None
    return float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
