"""The coordinatewise optimizer of Li & Malik 2017 on nets and data that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax.baselines.l2l import l2l
from alphaopt_jax.baselines.li_malik import li_malik_2017
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.papers import li_malik_2017 as tasks
from alphaopt_jax.tasks.task import Family
from benchmarks.common import intervals, results
from benchmarks.li_malik.optimizers import STOCHASTIC

LEARNED, LSTM = "learned", "LSTM by backpropagation"
HORIZON, STEPS, EVERY = 400, 800, 10
TRAINED = "mnist"
TRANSFERS = ("omniglot", "digits")
_TUNING_KEY, TEST_KEY = 700, 800
_WORST = 20.0


@dataclasses.dataclass(frozen=True)
class Setting:
    """A net and a batch size of the paper.

    Attributes:
      name: What tables call it.
      inputs: Dimensions that images are projected to.
      hidden: Units.
      batch_size: Rows in a batch.
      paper: What the paper's curves show.
    """

    name: str
    inputs: int
    hidden: int
    batch_size: int
    paper: str

    def family(self, data: str) -> Family:
        """The tasks."""
        return tasks.projected_net(
            data, inputs=self.inputs, hidden=self.hidden, batch_size=self.batch_size
        )


SETTINGS = (
    Setting("48-48, batch 64", 48, 48, 64, "fastest on all three data sets"),
    Setting("100-200, batch 64", 100, 200, 64, "oscillates at first, then best"),
    Setting("48-48, batch 10", 48, 48, 10, "best"),
    Setting("100-200, batch 10", 100, 200, 10, "best in spite of large oscillations"),
)


@dataclasses.dataclass(frozen=True)
class Curve:
    """One optimizer on one problem.

    Attributes:
      data: The data set.
      setting: The setting's name.
      optimizer: Its name.
      objectives: Every 10 steps, of all rows rather than of a batch, `float[N, 81]`.
    """

    data: str
    setting: str
    optimizer: str
    objectives: np.ndarray

    def mean(self, first: int, last: int) -> np.ndarray:
        """Mean objective of each run from one step to another, `float[N]`."""
        return self.objectives[:, first // EVERY + 1 : last // EVERY + 1].mean(axis=1)


def measure(
    policy: Path | str,
    lstm: Path | str,
    runs: int,
    settings: Sequence[Setting],
    tell: Callable[[str], None],
    grid: slice = slice(None),
) -> tuple[list[Curve], dict[str, tuple[float, ...]]]:
    """Tunes the rivals on the training problem alone, and measures all on all.

    Args:
      policy: The learned optimizer, by its path or name.
      lstm: The LSTM of Andrychowicz et al., trained on the same function, likewise.
      runs: Starts on each problem.
      settings: Nets and batch sizes.
      tell: Called with what has been done.
      grid: Which of the rivals' constants to try.

    Returns:
      The curves, and what was chosen for each rival.
    """
    trained = SETTINGS[0].family(TRAINED)
    constants = {}
    for name, rival in STOCHASTIC.items():
        costs = [
            _objectives(trained, _remake(name), each, _TUNING_KEY, 4, HORIZON)[:, 1:].mean()
            for each in rival.grid[grid]
        ]
        constants[name] = rival.grid[grid][int(np.argmin(costs))]
        tell(f"tuning {name}")
    curves = []
    learned = {LSTM: l2l(lstm), LEARNED: li_malik_2017(policy)}
    makers: dict[str, rollouts.OptimizerFactory] = {
        **{name: _remake(name) for name in STOCHASTIC},
        **{name: lambda _, tx=tx: tx for name, tx in learned.items()},
    }
    for setting in settings:
        for data in (TRAINED, *TRANSFERS):
            family = setting.family(data)
            for name, make in makers.items():
                each = constants.get(name, ())
                found = _objectives(family, make, each, TEST_KEY, runs, STEPS)
                curves.append(Curve(data, setting.name, name, found))
            tell(f"{data}, {setting.name}")
    return curves, constants


@functools.cache
def _remake(name: str) -> Callable[[tuple[chex.Numeric, ...]], optax.GradientTransformation]:
    """The rival of a name, from its constants in one tuple; one object a name."""
    return lambda constants: STOCHASTIC[name].make(*constants)


def _objectives(
    family: Family,
    make: rollouts.OptimizerFactory,
    made_of: Any,
    key: int,
    runs: int,
    num_steps: int,
) -> np.ndarray:
    """`float[runs, num_steps / 10 + 1]`; what fell apart counts as `_WORST`."""
    drawn = rollouts.draw(family, jax.random.split(jax.random.key(key), runs))
    found = np.asarray(_follow(family, make, made_of, *drawn, num_steps=num_steps), np.float64)
    return np.clip(np.nan_to_num(found, nan=_WORST), None, _WORST)


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames="num_steps")
def _follow(
    family: Family,
    make: rollouts.OptimizerFactory,
    made_of: Any,
    instances: Any,
    keys: chex.PRNGKey,
    *,
    num_steps: int,
) -> chex.Array:
    optimizer = make(made_of)

    def one(each: tuple[Any, chex.PRNGKey]) -> chex.Array:
        instance, key = each
        task = family.task(instance)
        init_key, stream = jax.random.split(key)
        params = task.init(init_key)
        step = rollouts.training_step(task, optimizer)

        def block(carry: Any, block_keys: chex.PRNGKey) -> tuple[Any, chex.Array]:
            objective = task.evaluation_loss(carry[0])
            return jax.lax.scan(step, carry, block_keys)[0], objective

        step_keys = jax.random.split(stream, (num_steps // EVERY, EVERY))
        (params, _), objectives = jax.lax.scan(block, (params, optimizer.init(params)), step_keys)
        return jnp.append(objectives, task.evaluation_loss(params))

    return jax.lax.map(one, (instances, keys))


def summarize(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """A row for each setting and optimizer."""
    papers = {setting.name: setting.paper for setting in SETTINGS}
    rows: list[dict[str, Any]] = []
    for setting, optimizer in dict.fromkeys((each.setting, each.optimizer) for each in curves):
        mine = {
            curve.data: curve
            for curve in curves
            if (curve.setting, curve.optimizer) == (setting, optimizer)
        }
        per_run = {data: curve.mean(0, HORIZON) for data, curve in mine.items()}
        transfer = np.mean([per_run[data] for data in TRANSFERS], axis=0)
        later = np.mean([mine[data].mean(HORIZON, STEPS) for data in TRANSFERS], axis=0)
        rows.append(
            {
                "part": "2017",
                "setting": setting,
                "optimizer": optimizer,
                **{data: float(values.mean()) for data, values in per_run.items()},
                "transfer": float(transfer.mean()),
                "transfer_interval": intervals.half_interval(transfer),
                "later": float(later.mean()),
                "later_interval": intervals.half_interval(later),
                "paper": papers[setting] if optimizer == LEARNED else None,
            }
        )
    return rows


def make_claims(rows: Sequence[Mapping[str, Any]]) -> list[results.Claim]:
    """That the learned optimizer is ahead of each rival on the mean of the transfer problems."""
    first = {row["optimizer"]: row for row in rows if row["setting"] == SETTINGS[0].name}
    return [
        results.Claim(
            f"li_malik.transfer.{name}",
            f"{SETTINGS[0].name}: mean objective over {HORIZON} steps on the transfer problems,"
            f" the learned optimizer's over that of tuned {name}",
            first[LEARNED]["transfer"] / first[name]["transfer"],
            "< 1",
        )
        for name in STOCHASTIC
    ]


COLUMNS = {
    "setting": "net",
    "optimizer": "optimizer",
    **{data: data for data in (TRAINED, *TRANSFERS)},
    "transfer": "mean of transfers",
    "transfer_interval": "±",
    "later": f"steps {HORIZON} to {STEPS}",
    "later_interval": "± ",
    "paper": "the paper's words",
}
