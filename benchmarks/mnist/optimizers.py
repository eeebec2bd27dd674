"""The optimizers that `benchmarks.mnist` compares, with what each is given."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import warnings

import chex
import optax
from optax import contrib

import alphaopt_jax as alphaopt
from alphaopt_jax.config import pretrained_config
from benchmarks.common import modes, schedules, soap, versions

TOO_SMALL, TOO_LARGE = 0.01, 100.0
ADAM_DEFAULT = 1e-3
ADAM_RATES = (1e-5, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1)
ADAM_GRID = ADAM_RATES[1:-1]
"""Rates among which Adam and cosine Adam are tuned, by mean final training loss over the reported
seeds. The ends of `ADAM_RATES` are the default, 100 times too small and 100 times too large."""
SOAP_GRID = (1e-3, 3e-3, 1e-2)
"""Rates among which cosine SOAP is tuned, in the same way."""


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer in the comparison.

    Attributes:
      name: Name in tables, pictures and stored runs.
      optimizer_fn: Maps a seed and the planned number of steps to the optimizer.
      given: What the user has to choose.
      evaluation_params: Maps state and parameters to the parameters to evaluate; None for the
        parameters themselves.
      version: Version of AlphaOpt, which distinguishes stored runs of two agents; None for all
        other optimizers.
    """

    name: str
    optimizer_fn: Callable[[int, int], optax.GradientTransformation]
    given: str
    evaluation_params: Callable[[optax.OptState, chex.ArrayTree], chex.ArrayTree] | None = None
    version: str | None = None


def adam(rate: float) -> OptimizerSpec:
    """Adam at one rate."""
    return OptimizerSpec(f"Adam {rate:g}", lambda seed, num_steps: optax.adam(rate), "a rate")


def cosine_adam(rate: float) -> OptimizerSpec:
    """Adam with warm-up and a cosine decay, at one peak rate."""

    def optimizer_fn(seed: int, num_steps: int) -> optax.GradientTransformation:
        return optax.adam(schedules.warmup_cosine(rate, num_steps))

    return OptimizerSpec(f"cosine Adam {rate:g}", optimizer_fn, "a rate, number of steps")


def cosine_soap(rate: float) -> OptimizerSpec:
    """SOAP with warm-up and a cosine decay, at one peak rate."""

    def optimizer_fn(seed: int, num_steps: int) -> optax.GradientTransformation:
        return soap.soap(schedules.warmup_cosine(rate, num_steps))

    return OptimizerSpec(f"cosine SOAP {rate:g}", optimizer_fn, "a rate, number of steps")


def from_scratch(*, learning_rate: float = 1.0, learn: bool = True) -> OptimizerSpec:
    """AlphaOpt with an untrained agent."""
    config = alphaopt.AlphaOptConfig()

    def optimizer_fn(seed: int, num_steps: int) -> optax.GradientTransformation:
        del num_steps  # An agent that learns from scratch has no schedule to follow.
        with warnings.catch_warnings():  # Rates are too small and too large on purpose.
            warnings.filterwarnings("ignore", "`learning_rate` is", UserWarning)
            return alphaopt.alphaopt(
                learning_rate, agent=None, learn=learn, seed=seed, config=config
            )

    name = modes.FROM_SCRATCH
    if not learn:
        name += ", learn=False"
    if learning_rate != 1.0:
        name += f", learning_rate={learning_rate:g}"
    version = versions.optimizer_version(None, config, learn=learn)
    return OptimizerSpec(name, optimizer_fn, "nothing", version=version)


def pretrained(*, horizon_known: bool) -> OptimizerSpec:
    """AlphaOpt as `alphaopt()` makes it, with the number of steps or evaluated at the average."""
    config = pretrained_config()

    def optimizer_fn(seed: int, num_steps: int) -> optax.GradientTransformation:
        return alphaopt.alphaopt(num_steps=num_steps if horizon_known else None, seed=seed)

    version = versions.optimizer_version(
        alphaopt.load_agent("base"), config, averaged=not horizon_known
    )
    if horizon_known:
        return OptimizerSpec(modes.ALPHAOPT, optimizer_fn, "number of steps", version=version)
    return OptimizerSpec(modes.NO_HORIZON, optimizer_fn, "nothing", alphaopt.eval_params, version)


ADAM = adam(ADAM_DEFAULT)
ALPHAOPT, NO_HORIZON = pretrained(horizon_known=True), pretrained(horizon_known=False)
FROM_SCRATCH = from_scratch()
NOT_LEARNING = from_scratch(learn=False)
START_TOO_SMALL = from_scratch(learning_rate=TOO_SMALL)
START_TOO_LARGE = from_scratch(learning_rate=TOO_LARGE)
TUNING_FREE = (
    OptimizerSpec("Prodigy", lambda seed, num_steps: contrib.prodigy(), "nothing"),
    OptimizerSpec(
        "Schedule-free AdamW",
        lambda seed, num_steps: contrib.schedule_free_adamw(),
        "nothing",
        contrib.schedule_free_eval_params,
    ),
    OptimizerSpec("DoG", lambda seed, num_steps: contrib.dog(), "nothing"),
    OptimizerSpec(
        "Mechanic (Adam)", lambda seed, num_steps: contrib.mechanize(optax.adam(1.0)), "nothing"
    ),
    OptimizerSpec("MoMo", lambda seed, num_steps: contrib.momo(), "nothing"),
    OptimizerSpec("COCOB", lambda seed, num_steps: contrib.cocob(), "nothing"),
)

QUICK = (ALPHAOPT, FROM_SCRATCH, ADAM)
FULL = (
    ALPHAOPT,
    NO_HORIZON,
    FROM_SCRATCH,
    NOT_LEARNING,
    START_TOO_SMALL,
    START_TOO_LARGE,
    *(adam(rate) for rate in ADAM_RATES),
    *(cosine_adam(rate) for rate in ADAM_GRID),
    *(cosine_soap(rate) for rate in SOAP_GRID),
    OptimizerSpec(
        "SGD momentum 0.1", lambda seed, num_steps: optax.sgd(0.1, momentum=0.9), "a rate"
    ),
    *TUNING_FREE,
)
