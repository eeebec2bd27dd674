"""The optimizers of `benchmarks.robustness`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optax

import alphaopt_jax as alphaopt
from benchmarks.common import modes
from benchmarks.robustness import faults, runs

ADAM = "Adam, tuned"
RATES = tuple(float(rate) for rate in np.logspace(-3, -1, 7))


def optimizers(seeds: Sequence[int], *, quick: bool) -> dict[str, optax.GradientTransformation]:
    """All optimizers by name; Adam has the learning rate that is best without a fault.

    Args:
      seeds: Seeds that Adam is tuned on.
      quick: Whether to leave out the agents that learn.
    """
    found: dict[str, optax.GradientTransformation] = {
        modes.ALPHAOPT: alphaopt.alphaopt(num_steps=faults.STEPS),
        modes.NO_HORIZON: alphaopt.alphaopt(),
    }
    if not quick:
        found[modes.LEARN_NO_HORIZON] = alphaopt.alphaopt(learn=True)
        found[modes.FROM_SCRATCH] = alphaopt.alphaopt(agent=None)
    final_losses = {}
    for rate in RATES:
        adam = optax.adam(rate)  # One object per rate, so that it is compiled once.
        losses = [float(runs.train(adam, seed=seed).losses[-1]) for seed in seeds]
        final_losses[rate] = np.mean(np.log(losses))
    best = min(final_losses, key=lambda rate: float(final_losses[rate]))
    found[ADAM] = optax.adam(best)
    found[f"{ADAM}, apply_if_finite"] = optax.apply_if_finite(optax.adam(best), faults.STEPS)
    return found
