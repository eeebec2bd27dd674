"""The optimizers of `benchmarks.l2l`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import chex
import numpy as np
import optax

LSTM = "LSTM"
RATES = tuple(float(rate) for rate in np.logspace(-4, 1, 16))

BASELINES: Mapping[str, Callable[[chex.Numeric], optax.GradientTransformation]] = {
    "SGD": optax.sgd,
    "NAG": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "RMSprop": lambda rate: optax.rmsprop(rate),
    "Adam": lambda rate: optax.adam(rate),
}
"""Hand-designed optimizers by learning rate, which is tuned as in the paper; other constants are
optax's defaults."""
