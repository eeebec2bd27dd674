"""Training runs of `benchmarks.online_learning`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import alphaopt_jax as alphaopt
from alphaopt_jax import evaluation
from alphaopt_jax._storage import digests
from alphaopt_jax.config import pretrained_config
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.task import Family
from benchmarks.common import versions
from benchmarks.common.run_store import RunStore
from benchmarks.online_learning.tasks import MULTIPLIERS, Case
from benchmarks.zero_tuning import statistics

HORIZONS = (200, 2000)


def on_landscape(case: Case, learn: bool, seeds: Sequence[int]) -> np.ndarray:
    """Trains AlphaOpt, no horizon, on a landscape, without a multiplier.

    Args:
      case: The landscape.
      learn: AlphaOpt's argument `learn`.
      seeds: Seeds of the exploration; the start is fixed.

    Returns:
      `float[H, S]`, bounded log losses after each of `HORIZONS`, by seed.
    """

    def optimizer_fn(seed: chex.Numeric) -> optax.GradientTransformation:
        return alphaopt.alphaopt(learn=learn, seed=seed)

    options = evaluation.TrainingOptions(
        checkpoints=HORIZONS[:-1], num_batches=1, vectorize=not learn
    )
    outcome = evaluation.train_rates(
        case.task, optimizer_fn, tuple(seeds), HORIZONS[-1], (0,), options
    )
    return _log_losses(outcome.train_losses[0].T, outcome.initial_losses[:1])


class Training(NamedTuple):
    """Trainings on one task at all `MULTIPLIERS`: the key of their losses in the store.

    Attributes:
      task: Name of the task.
      agent: AlphaOpt's argument `agent`.
      learn: AlphaOpt's argument `learn`.
      seeds: Number of seeds, of initial parameters and batches.
      version: Digest of all that the losses depend on besides.
    """

    task: str
    agent: str | None
    learn: bool
    seeds: int
    version: str


Store = RunStore[Training]


def open_store(path: Path) -> Store:
    """Returns the store of finished trainings in a file."""
    return RunStore(path, Training)


def with_multipliers(
    case: Case, agent: str | None, learn: bool, seeds: int, store: Store
) -> np.ndarray:
    """Trains AlphaOpt without a number of steps at all `MULTIPLIERS` of its rates.

    Args:
      case: The task.
      agent: AlphaOpt's argument `agent`.
      learn: AlphaOpt's argument `learn`.
      seeds: Number of seeds.
      store: Finished trainings, which are not repeated.

    Returns:
      `float[R, S]`, bounded log losses of the averaged parameters, by multiplier and seed.
    """
    training = Training(case.name, agent, learn, seeds, _version(agent, learn))
    if training not in store:
        store.add({training: {"log_losses": _train(training, case).tolist()}})
    return np.array(store[training]["log_losses"])


def _version(agent: str | None, learn: bool) -> str:
    optimizer = versions.optimizer_version(
        None if agent is None else alphaopt.load_agent(agent),
        alphaopt.AlphaOptConfig() if agent is None else pretrained_config(),
        learn=learn,
        averaged=True,
    )
    return digests.digest((optimizer, MULTIPLIERS, HORIZONS[-1]))


def _train(training: Training, case: Case) -> np.ndarray:
    def optimizer_fn(multiplier: chex.Numeric) -> optax.GradientTransformation:
        return alphaopt.alphaopt(multiplier, agent=training.agent, learn=training.learn)

    options = evaluation.TrainingOptions(
        evaluation_params=alphaopt.eval_params, vectorize=not training.learn
    )
    outcome = evaluation.train_rates(
        case.task, optimizer_fn, MULTIPLIERS, HORIZONS[-1], range(training.seeds), options
    )
    return _log_losses(outcome.final_train_losses.T, outcome.initial_losses)


class Course(NamedTuple):
    """The course of a training of T steps.

    Attributes:
      losses: `float[T]`, loss of each step's batch.
      factors: `float[T]`, `learning_rate` times the learned factor, a geometric mean over all
        parameters.
    """

    losses: np.ndarray
    factors: np.ndarray


def course(case: Case, multiplier: float, learn: bool, num_steps: int) -> Course:
    """Trains the pretrained agent once and records what it learns.

    Args:
      case: A network.
      multiplier: Value of `learning_rate`.
      learn: AlphaOpt's argument `learn`.
      num_steps: Number of updates, not given to AlphaOpt.
    """

    @jax.jit
    def train(multiplier: chex.Numeric) -> tuple[chex.Array, chex.Array]:
        task = case.task.draw(jax.random.key(0)) if isinstance(case.task, Family) else case.task
        tx = alphaopt.alphaopt(multiplier, learn=learn)
        step_fn = rollouts.training_step(task, tx)

        def step(carry: Any, key: chex.PRNGKey) -> tuple[Any, tuple[chex.Array, chex.Array]]:
            carry, loss = step_fn(carry, key)
            level = alphaopt.metrics(carry[1]).get("mean_level", jnp.zeros(()))
            return carry, (loss, multiplier * jnp.exp(level))

        init_key, key = jax.random.split(jax.random.key(0))
        params = task.init(init_key)
        return jax.lax.scan(step, (params, tx.init(params)), jax.random.split(key, num_steps))[1]

    return Course(*map(np.asarray, train(jnp.asarray(multiplier))))


def _log_losses(losses: np.ndarray, initial_losses: Any) -> np.ndarray:
    """Bounded log losses, `float[N, S]`, from losses `[N, S]` and initial losses `[S]` or `[1]`."""
    pairs = np.broadcast_arrays(losses, initial_losses)
    flat = [
        statistics.log_loss(*pair) for pair in zip(*(each.ravel() for each in pairs), strict=True)
    ]
    return np.array(flat).reshape(losses.shape)
