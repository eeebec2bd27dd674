"""Runs of the coordinatewise optimizer of Li & Malik 2017 on held-out nets and data sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

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
from benchmarks.li_malik.optimizers import STOCHASTIC

LEARNED, LSTM = "learned", "LSTM by backpropagation"
HORIZON, STEPS, EVERY = 400, 800, 10
TRAINED = "mnist"
TRANSFERS = ("omniglot", "digits")
_TUNING_KEY, TEST_KEY = 700, 800
_WORST = 20.0


@dataclasses.dataclass(frozen=True)
class Setting:
    """A net and a batch size in the paper.

    Attributes:
      name: Name in tables.
      inputs: Dimensions of the projected images.
      hidden: Hidden units.
      batch_size: Examples in a batch.
      paper: The paper's result.
    """

    name: str
    inputs: int
    hidden: int
    batch_size: int
    paper: str

    def family(self, data: str) -> Family:
        """The family of tasks on a data set."""
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
      data: Name of the data set.
      setting: Name of the setting.
      optimizer: Name of the optimizer.
      objectives: `float[N, 81]`, losses of N runs on the whole data set, every 10 steps.
    """

    data: str
    setting: str
    optimizer: str
    objectives: np.ndarray

    def mean(self, first: int, last: int) -> np.ndarray:
        """Mean objective of each run from step `first` to step `last`, `float[N]`."""
        return self.objectives[:, first // EVERY + 1 : last // EVERY + 1].mean(axis=1)


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much to run.

    Attributes:
      runs: N, runs on each problem.
      settings: Nets and batch sizes.
      grid: Part of the rivals' grids to try.
    """

    runs: int = 5
    settings: Sequence[Setting] = SETTINGS
    grid: slice = dataclasses.field(default_factory=lambda: slice(None))


def measure(
    policy: Path | str,
    lstm: Path | str,
    extent: Extent,
    on_progress: Callable[[str], None],
) -> tuple[list[Curve], dict[str, tuple[float, ...]]]:
    """Tunes the rivals on the training problem only, and runs all optimizers on all problems.

    Args:
      policy: Path or name of the learned optimizer.
      lstm: Path or name of the LSTM of Andrychowicz et al., trained on the same problem.
      extent: How much to run.
      on_progress: Called with a description of each finished step.

    Returns:
      The curves, and the tuned constants by rival.
    """
    trained = SETTINGS[0].family(TRAINED)
    constants = {}
    for name, rival in STOCHASTIC.items():
        grid = rival.grid[extent.grid]
        costs = [
            _objectives(trained, _from_constants(name), each, _Runs(_TUNING_KEY, 4, HORIZON))
            for each in grid
        ]
        means = [objectives[:, 1:].mean() for objectives in costs]
        constants[name] = grid[int(np.argmin(means))]
        on_progress(f"tuning {name}")
    learned = {LSTM: l2l(lstm), LEARNED: li_malik_2017(policy)}
    optimizer_fns: dict[str, rollouts.OptimizerFactory] = {
        **{name: _from_constants(name) for name in STOCHASTIC},
        **{name: lambda _, tx=tx: tx for name, tx in learned.items()},
    }
    curves = []
    for setting in extent.settings:
        for data in (TRAINED, *TRANSFERS):
            family = setting.family(data)
            for name, optimizer_fn in optimizer_fns.items():
                runs = _Runs(TEST_KEY, extent.runs, STEPS)
                found = _objectives(family, optimizer_fn, constants.get(name, ()), runs)
                curves.append(Curve(data, setting.name, name, found))
            on_progress(f"{data}, {setting.name}")
    return curves, constants


@functools.cache
def _from_constants(
    name: str,
) -> Callable[[tuple[chex.Numeric, ...]], optax.GradientTransformation]:
    """Maps a tuple of constants to the rival. One object per name, so that it is compiled once."""
    return lambda constants: STOCHASTIC[name].optimizer_fn(*constants)


class _Runs(NamedTuple):
    key: int
    number: int
    num_steps: int


def _objectives(
    family: Family,
    optimizer_fn: rollouts.OptimizerFactory,
    optimizer_params: Any,
    runs: _Runs,
) -> np.ndarray:
    """`float[N, T / 10 + 1]`, bounded by `_WORST`; NaN counts as `_WORST`."""
    drawn = rollouts.draw(family, jax.random.split(jax.random.key(runs.key), runs.number))
    found = _train(family, optimizer_fn, optimizer_params, drawn, num_steps=runs.num_steps)
    return np.clip(np.nan_to_num(np.asarray(found, np.float64), nan=_WORST), None, _WORST)


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames="num_steps")
def _train(
    family: Family,
    optimizer_fn: rollouts.OptimizerFactory,
    optimizer_params: Any,
    drawn: tuple[Any, chex.PRNGKey],
    *,
    num_steps: int,
) -> chex.Array:
    optimizer = optimizer_fn(optimizer_params)

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

    return jax.lax.map(one, drawn)
