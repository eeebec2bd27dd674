"""The optimizers whose cost `benchmarks.cost` compares."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math
from typing import NamedTuple

import jax
import optax

import alphaopt_jax as alphaopt
from alphaopt_jax.baselines.l2l import LSTMConfig
from alphaopt_jax.config import pretrained_config
from benchmarks.common import soap
from benchmarks.common.modes import ALPHAOPT, FROM_SCRATCH, LEARN, NO_HORIZON

ADAM = "Adam"
SOAP = "SOAP"
OWN = "AlphaOpt, parameters' coordinates"
LEARN_OWN, BFLOAT16 = f"{OWN}, learn=True", f"{OWN}, bfloat16 moments"
_NUM_STEPS = 10_000
_MAX_ROTATED = 3e7  # A step on more parameters takes seconds on a CPU.


class OptimizerSpec(NamedTuple):
    """An optimizer and the models that it is timed on.

    Attributes:
      optimizer_fn: Makes the optimizer.
      max_params: Largest number of parameters; larger models do not fit or take minutes.
    """

    optimizer_fn: Callable[[], optax.GradientTransformation]
    max_params: float = math.inf


def coordinatewise_lstm() -> optax.GradientTransformation:
    """The optimizer of Andrychowicz et al. 2016 with random weights, for its cost only.

    The state of its LSTM has 80 numbers for every parameter.
    """
    config = LSTMConfig()
    return config.transformation(config.init(jax.random.key(0)))


OPTIMIZERS: dict[str, OptimizerSpec] = {
    ADAM: OptimizerSpec(lambda: optax.adam(1e-3)),
    ALPHAOPT: OptimizerSpec(lambda: alphaopt.alphaopt(num_steps=_NUM_STEPS), _MAX_ROTATED),
    NO_HORIZON: OptimizerSpec(alphaopt.alphaopt, _MAX_ROTATED),
    LEARN: OptimizerSpec(lambda: alphaopt.alphaopt(learn=True, num_steps=_NUM_STEPS), _MAX_ROTATED),
    OWN: OptimizerSpec(lambda: alphaopt.alphaopt(coordinates="parameters", num_steps=_NUM_STEPS)),
    LEARN_OWN: OptimizerSpec(
        lambda: alphaopt.alphaopt(coordinates="parameters", learn=True, num_steps=_NUM_STEPS)
    ),
    BFLOAT16: OptimizerSpec(
        lambda: alphaopt.alphaopt(
            coordinates="parameters",
            num_steps=_NUM_STEPS,
            config=dataclasses.replace(pretrained_config(), moment_dtype="bfloat16"),
        )
    ),
    FROM_SCRATCH: OptimizerSpec(lambda: alphaopt.alphaopt(agent=None)),
    "Prodigy": OptimizerSpec(optax.contrib.prodigy),
    SOAP: OptimizerSpec(lambda: soap.soap(1e-3), max_params=1e6),
    "Muon": OptimizerSpec(lambda: optax.contrib.muon(1e-3), max_params=1e6),
    "coordinatewise LSTM": OptimizerSpec(coordinatewise_lstm, max_params=1e6),
}
"""All optimizers by their names in tables and pictures."""
