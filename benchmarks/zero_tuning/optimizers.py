"""The optimizers that `benchmarks.zero_tuning` compares, with what each is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
from pathlib import Path
from typing import Any, Literal

import chex
import jax
import optax
from optax import contrib

import alphaopt_jax as alphaopt
from alphaopt_jax import config, evaluation
from benchmarks.common import schedules, soap, versions
from benchmarks.common.modes import ALPHAOPT, LEARN, NO_HORIZON

GRID = (*(factor * 10.0**power for power in range(-7, 0) for factor in (1, 3)), 1.0)
GRID = tuple(float(f"{rate:.0e}") for rate in GRID)
"""The 15 learning rates {1, 3} x 10^-7 ... 10^-1 and 1."""
RIVAL_GRID = GRID[6:14]
"""The 8 learning rates {1, 3} x 10^-4 ... 10^-1."""

Group = Literal["grid", "tuning-free", "default", "alphaopt"]


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer in the comparison.

    Attributes:
      name: Name in tables, pictures and stored runs.
      group: "grid" optimizers run at every learning rate of their grid; all others have one setting
        for all tasks.
      optimizer_fn: Maps a learning rate and the number of steps to the optimizer. Only "grid"
        optimizers use the learning rate, which may be traced.
      needs_horizon: True if the optimizer depends on the number of steps. If not, one run gives the
        losses at several numbers of steps.
      evaluation_params: Maps state and parameters to the parameters to evaluate; None for the
        parameters themselves.
      learns: True for an agent that learns. Its steps differ in cost, so its runs are not batched.
      version: Version of AlphaOpt, which tells stored runs of two agents apart; None for all other
        optimizers.
      grid: Learning rates of a "grid" optimizer, all of them in `GRID`.
    """

    name: str
    group: Group
    optimizer_fn: Callable[[chex.Numeric, int], optax.GradientTransformation]
    needs_horizon: bool = False
    evaluation_params: evaluation.EvaluationParams | None = None
    learns: bool = False
    version: str | None = None
    grid: tuple[float, ...] = GRID


ADAM = OptimizerSpec("Adam", "grid", lambda rate, num_steps: optax.adam(rate))
COSINE = OptimizerSpec(
    "cosine Adam",
    "grid",
    lambda rate, num_steps: optax.adam(schedules.warmup_cosine(rate, num_steps)),
    needs_horizon=True,
)
SGD = OptimizerSpec("SGD momentum", "grid", lambda rate, num_steps: optax.sgd(rate, momentum=0.9))
ADAM_DEFAULT_RATE = 1e-3


def _one_setting(
    name: str, group: Group, optimizer_fn: Callable[[], optax.GradientTransformation], **more: Any
) -> OptimizerSpec:
    return OptimizerSpec(name, group, lambda rate, num_steps: optimizer_fn(), **more)


TUNING_FREE = (
    _one_setting("Prodigy", "tuning-free", contrib.prodigy),
    _one_setting("D-Adapt AdamW", "tuning-free", contrib.dadapt_adamw),
    _one_setting("DoG", "tuning-free", contrib.dog),
    _one_setting("DoWG", "tuning-free", contrib.dowg),
    _one_setting("COCOB", "tuning-free", contrib.cocob),
    _one_setting("MoMo", "tuning-free", contrib.momo),
    _one_setting("MoMo-Adam", "tuning-free", contrib.momo_adam),
    _one_setting("Mechanic (Adam)", "tuning-free", lambda: contrib.mechanize(optax.adam(1.0))),
    _one_setting(
        "Schedule-free AdamW",
        "tuning-free",
        contrib.schedule_free_adamw,
        evaluation_params=contrib.schedule_free_eval_params,
    ),
)
# optax has no default rates for these; the rates are those of the authors' own code.
DEFAULTS = (
    _one_setting("Muon", "default", lambda: contrib.muon(0.02, adam_learning_rate=3e-4)),
    _one_setting("AdamW 1e-3", "default", lambda: optax.adamw(1e-3)),
    _one_setting("Lion 1e-4", "default", lambda: optax.lion(1e-4)),
)


def _kernels_as_matrices(params: optax.Params) -> Any:
    """Dimensions for `contrib.muon`: a kernel is a matrix of `[product of first axes, last axis]`.

    None for scalars and vectors, which its Adam trains.
    """

    def of_leaf(leaf: chex.Array) -> contrib.MuonDimensionNumbers | None:
        if leaf.ndim < 2:
            return None
        return contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

    return jax.tree.map(of_leaf, params)


def _cosine_muon(rate: chex.Numeric, num_steps: int) -> optax.GradientTransformation:
    # With `consistent_rms` of 0.2, as in "Muon is Scalable for LLM Training" (arXiv:2502.16982), a
    # matrix moves per step as far as Adam's do, so that one rate serves both parts.
    return contrib.muon(
        schedules.warmup_cosine(rate, num_steps),
        consistent_rms=0.2,
        muon_weight_dimension_numbers=_kernels_as_matrices,
    )


COSINE_SOAP = OptimizerSpec(
    "cosine SOAP",
    "grid",
    lambda rate, num_steps: soap.soap(schedules.warmup_cosine(rate, num_steps)),
    needs_horizon=True,
    grid=RIVAL_GRID,
)
COSINE_MUON = OptimizerSpec(
    "cosine Muon", "grid", _cosine_muon, needs_horizon=True, grid=RIVAL_GRID
)
RIVALS = (COSINE_SOAP, COSINE_MUON)
"""What an expert would take; not needed for the claims about the others, so they run last."""
BASELINES = (ADAM, COSINE, *TUNING_FREE, *DEFAULTS, SGD, *RIVALS)
"""All optimizers but AlphaOpt, in the order in which they run."""

MODES: Mapping[str, Mapping[str, bool]] = {
    ALPHAOPT: {"needs_horizon": True},
    NO_HORIZON: {"needs_horizon": False},
    LEARN: {"needs_horizon": True, "learn": True},
}
"""The modes of AlphaOpt: from a name to the arguments of `alphaopt_spec`."""


def alphaopt_spec(name: str, agent: Path | None) -> OptimizerSpec:
    """One of `MODES`.

    Args:
      name: Name of the mode.
      agent: File of the agent; by default the one that `alphaopt()` uses.
    """
    needs_horizon, learn = MODES[name]["needs_horizon"], MODES[name].get("learn", False)
    loaded = alphaopt.load_agent("base" if agent is None else agent)
    # The stored runs of agents without blocks are from before there were averages.
    averaged = not needs_horizon and loaded.block_size > 0

    def optimizer_fn(rate: chex.Numeric, num_steps: int) -> optax.GradientTransformation:
        del rate
        horizon = num_steps if needs_horizon else None
        return alphaopt.alphaopt(agent=loaded, learn=learn, num_steps=horizon)

    return OptimizerSpec(
        name,
        "alphaopt",
        optimizer_fn,
        needs_horizon,
        evaluation_params=alphaopt.eval_params if averaged else None,
        learns=learn,
        version=versions.optimizer_version(
            loaded, config.pretrained_config(), learn=learn, averaged=averaged
        ),
    )
