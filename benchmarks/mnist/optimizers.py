"""The optimizers that `benchmarks.mnist` compares, and what each was given."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import hashlib
from typing import Any

import chex
import jax
import numpy as np
import optax
from optax import contrib

import alphaopt_jax as alphaopt
from alphaopt_jax.config import adaptive_config
from benchmarks.common import schedules

TOO_SMALL, TOO_LARGE = 0.01, 100.0
ADAM_DEFAULT = 1e-3
ADAM_RATES = (1e-5, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1)
ADAM_GRID = ADAM_RATES[1:-1]
"""The rates among which Adam and cosine Adam are tuned, by mean final training loss over the same
seeds. The ends of `ADAM_RATES` are the default 100 times too small and too large."""


@dataclasses.dataclass(frozen=True)
class Contender:
    """An optimizer as it enters the comparison.

    Attributes:
      name: What tables and pictures call it.
      make: From a seed and the planned number of steps to the optimizer.
      given: What a user had to choose.
      evaluation_params: From state and parameters to the parameters to evaluate, if others.
      settings: What the result depends on besides the name, so that a stored run is used again only
        where it is the same.
    """

    name: str
    make: Callable[[int, int], optax.GradientTransformation]
    given: str
    evaluation_params: Callable[[optax.OptState, chex.ArrayTree], chex.ArrayTree] | None = None
    settings: str = ""


def adam(rate: float) -> Contender:
    """Adam at one rate."""
    return Contender(f"Adam {rate:g}", lambda seed, num_steps: optax.adam(rate), "a rate")


def cosine_adam(rate: float) -> Contender:
    """Adam with warm-up and a cosine schedule, at one peak rate."""

    def make(seed: int, num_steps: int) -> optax.GradientTransformation:
        return optax.adam(schedules.warmup_cosine(rate, num_steps))

    return Contender(f"cosine Adam {rate:g}", make, "a rate, number of steps")


def alphaopt_online(
    name: str = "AlphaOpt", *, learning_rate: float = 1.0, learn: bool = True, **constants: Any
) -> Contender:
    """A fresh AlphaOpt agent."""
    config = dataclasses.replace(alphaopt.AlphaOptConfig(), **constants)

    def make(seed: int, num_steps: int) -> optax.GradientTransformation:
        del num_steps  # A fresh agent that does not know the end has no schedule to follow.
        return alphaopt.alphaopt(learning_rate, agent=None, learn=learn, seed=seed, config=config)

    return Contender(name, make, "nothing", settings=str(config))


def alphaopt_shipped(name: str = "AlphaOpt, shipped") -> Contender:
    """The shipped agent, frozen, which is told the number of steps."""
    agent = alphaopt.load_agent("base")
    numbers = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(agent.params))
    fingerprint = hashlib.sha256(numbers).hexdigest()[:16]

    def make(seed: int, num_steps: int) -> optax.GradientTransformation:
        return alphaopt.alphaopt(agent=agent, num_steps=num_steps, seed=seed)

    settings = f"{fingerprint} {adaptive_config()}"
    return Contender(name, make, "number of steps", settings=settings)


ADAM = adam(ADAM_DEFAULT)
SHIPPED = alphaopt_shipped()
ONLINE = alphaopt_online()
LEARNING_OFF = alphaopt_online("AlphaOpt, learning off", learn=False)
ONLINE_TOO_SMALL = alphaopt_online("AlphaOpt x 0.01", learning_rate=TOO_SMALL)
ONLINE_TOO_LARGE = alphaopt_online("AlphaOpt x 100", learning_rate=TOO_LARGE)
TUNING_FREE = (
    Contender("Prodigy", lambda seed, num_steps: contrib.prodigy(), "nothing"),
    Contender(
        "Schedule-free AdamW",
        lambda seed, num_steps: contrib.schedule_free_adamw(),
        "nothing",
        contrib.schedule_free_eval_params,
    ),
    Contender("DoG", lambda seed, num_steps: contrib.dog(), "nothing"),
    Contender(
        "Mechanic (Adam)", lambda seed, num_steps: contrib.mechanize(optax.adam(1.0)), "nothing"
    ),
    Contender("MoMo", lambda seed, num_steps: contrib.momo(), "nothing"),
    Contender("COCOB", lambda seed, num_steps: contrib.cocob(), "nothing"),
)

QUICK = (SHIPPED, ONLINE, ADAM)
FULL = (
    SHIPPED,
    ONLINE,
    LEARNING_OFF,
    ONLINE_TOO_SMALL,
    ONLINE_TOO_LARGE,
    *(adam(rate) for rate in ADAM_RATES),
    *(cosine_adam(rate) for rate in ADAM_GRID),
    Contender("SGD momentum 0.1", lambda seed, num_steps: optax.sgd(0.1, momentum=0.9), "a rate"),
    *TUNING_FREE,
)
