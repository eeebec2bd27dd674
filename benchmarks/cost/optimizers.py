"""The optimizers whose cost is compared, and what a learned optimizer cost until now."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math
from typing import NamedTuple

import jax
import optax

import alphaopt_jax as alphaopt
from alphaopt_jax.baselines.l2l import LSTMConfig
from alphaopt_jax.config import adaptive_config

ADAM = "Adam"
FROZEN, ADAPTIVE, ONLINE = "AlphaOpt, frozen", "AlphaOpt, adaptive", "AlphaOpt, online"
COMPACT = "AlphaOpt, frozen, compact"


class Contender(NamedTuple):
    """An optimizer and where it is run.

    Attributes:
      make: Makes it.
      largest: Most parameters that it is run on; beyond, it does not fit or takes minutes.
    """

    make: Callable[[], optax.GradientTransformation]
    largest: float = math.inf


def coordinatewise_lstm() -> optax.GradientTransformation:
    """The optimizer of Andrychowicz et al. 2016 with random weights, for what it costs.

    Every parameter has the carries of an LSTM of its own, 80 numbers.
    """
    config = LSTMConfig()
    return config.transformation(config.init(jax.random.key(0)))


CONTENDERS: dict[str, Contender] = {
    ADAM: Contender(lambda: optax.adam(1e-3)),
    FROZEN: Contender(alphaopt.alphaopt),
    COMPACT: Contender(
        lambda: alphaopt.alphaopt(
            config=dataclasses.replace(adaptive_config(), moment_dtype="bfloat16")
        )
    ),
    ADAPTIVE: Contender(lambda: alphaopt.alphaopt(learn=True)),
    ONLINE: Contender(lambda: alphaopt.alphaopt(agent=None)),
    "Prodigy": Contender(optax.contrib.prodigy),
    "Muon": Contender(lambda: optax.contrib.muon(1e-3), largest=1e6),
    "coordinatewise LSTM": Contender(coordinatewise_lstm, largest=1e6),
}
