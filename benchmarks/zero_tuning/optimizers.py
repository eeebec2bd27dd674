"""The optimizers that `benchmarks.zero_tuning` compares, and what each was given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import hashlib
from pathlib import Path
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

import alphaopt_jax as alphaopt
from alphaopt_jax import config, evaluation
from benchmarks.common import schedules

GRID = (*(factor * 10.0**power for power in range(-7, 0) for factor in (1, 3)), 1.0)
GRID = tuple(float(f"{rate:.0e}") for rate in GRID)
"""The 15 learning rates {1, 3} x 10^-7 ... 10^-1 and 1."""

Group = Literal["grid", "tuning-free", "default", "candidate"]


@dataclasses.dataclass(frozen=True)
class Method:
    """An optimizer as it enters the comparison.

    Attributes:
      name: What tables, pictures and stored runs call it.
      group: "grid" methods run at every rate of `GRID`; all others have one setting for all tasks.
      make: From a learning rate, which may be traced and only "grid" methods use, and the number of
        steps, to the optimizer.
      knows_horizon: Whether the number of steps matters to it. If not, one run gives its losses at
        several numbers of steps.
      evaluation_params: From state and parameters to those that are judged, if others.
      learns: Whether it does more at some steps than at others, so that runs come one by one.
      agent: What the agent learned, in short, so that runs of another agent are not taken for it.
    """

    name: str
    group: Group
    make: Callable[[chex.Numeric, int], optax.GradientTransformation]
    knows_horizon: bool = False
    evaluation_params: evaluation.EvaluationParams | None = None
    learns: bool = False
    agent: str | None = None


ADAM = Method("Adam", "grid", lambda rate, num_steps: optax.adam(rate))
COSINE = Method(
    "cosine Adam",
    "grid",
    lambda rate, num_steps: optax.adam(schedules.warmup_cosine(rate, num_steps)),
    knows_horizon=True,
)
SGD = Method("SGD momentum", "grid", lambda rate, num_steps: optax.sgd(rate, momentum=0.9))
ADAM_DEFAULT_RATE = 1e-3


def _one_setting(
    name: str, group: Group, make: Callable[[], optax.GradientTransformation], **more: Any
) -> Method:
    return Method(name, group, lambda rate, num_steps: make(), **more)


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
# optax has no default rates for these: they are those of the authors' own code.
DEFAULTS = (
    _one_setting("Muon", "default", lambda: contrib.muon(0.02, adam_learning_rate=3e-4)),
    _one_setting("AdamW 1e-3", "default", lambda: optax.adamw(1e-3)),
    _one_setting("Lion 1e-4", "default", lambda: optax.lion(1e-4)),
)
PEERS = (ADAM, COSINE, *TUNING_FREE, *DEFAULTS, SGD)
"""In the order in which they run."""


CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    "AlphaOpt": {"knows_horizon": True},
    "AlphaOpt, steps not given": {"knows_horizon": False},
    "AlphaOpt, learning": {"knows_horizon": True, "learn": True},
}
"""From a name to whether the number of steps is given and the arguments of `alphaopt`."""


def candidate(name: str, agent: Path | None) -> Method:
    """One of `CANDIDATES` with the agent of a file; by default the one that `alphaopt()` uses."""
    return _alphaopt(name, agent, **CANDIDATES[name])


def _alphaopt(name: str, agent: Path | None, *, knows_horizon: bool, **arguments: Any) -> Method:
    if agent is not None:
        arguments["agent"] = str(agent)

    def make(rate: chex.Numeric, num_steps: int) -> optax.GradientTransformation:
        return alphaopt.alphaopt(num_steps=num_steps if knows_horizon else None, **arguments)

    learns = arguments.get("learn", False)
    constants = config.adaptive_config()
    return Method(
        name,
        "candidate",
        make,
        knows_horizon,
        learns=learns,
        agent=_fingerprint(make(1.0, 100), constants),
    )


def _fingerprint(optimizer: optax.GradientTransformation, constants: config.AlphaOptConfig) -> str:
    """Twelve characters that differ between agents and between constants of the optimizer."""
    agent = alphaopt.agent_from_state(optimizer.init(jnp.zeros(1)))
    digest = hashlib.sha256(str(constants).encode())
    digest.update(f"{agent.contract} {agent.max_log_rate} {agent.anytime_steps}".encode())
    for leaf in jax.tree.leaves(agent.params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:12]
