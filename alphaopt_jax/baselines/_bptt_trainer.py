"""One training by backpropagation through time, at one learning rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import functools
import os
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from alphaopt_jax._storage import run_folder
from alphaopt_jax.baselines import _training
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.task import Family, Task


@dataclasses.dataclass(frozen=True)
class BackpropagationConfig:
    """Hyperparameters of a training by backpropagation through time.

    Attributes:
      horizon: Optimizer steps in an episode.
      objective: The meta-objective: the sum of the losses, as in the paper, or of their logarithms,
        for tasks with losses of different magnitude.
      unroll: Steps of truncated backpropagation; divides `horizon`.
      tasks: Tasks trained in parallel in one episode.
      second_derivatives: True to differentiate through the gradients passed to the optimizer.
      learning_rates: Candidate learning rates of the meta-optimizer, Adam. With several, each is
        tried in a short training, and the one with the best final score is used.
      max_gradient_norm: Meta-gradients are clipped to this global norm.
      episodes: Number of training episodes.
      validate_every: Episodes between two validations.
      validation_tasks: Tasks per validation, the same ones each time.
      patience: Validations without improvement after which the training stops.

    Raises:
      ValueError: `unroll` does not divide `horizon`.
    """

    horizon: int = 100
    objective: Literal["loss", "log_loss"] = "loss"
    unroll: int = 20
    tasks: int = 1
    second_derivatives: bool = False
    learning_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    max_gradient_norm: float = 1.0
    episodes: int = 500
    validate_every: int = 20
    validation_tasks: int = 8
    patience: int = 10

    def __post_init__(self) -> None:
        """Checks that unrolls fill an episode."""
        if self.horizon % self.unroll:
            raise ValueError(f"unroll={self.unroll} does not divide horizon={self.horizon}.")


@dataclasses.dataclass(frozen=True)
class TrainableOptimizer:
    """An optimizer with parameters to train.

    Attributes:
      name: Name in the progress display.
      optimizer_fn: From the optimizer's parameters to the optimizer.
      init: From a key (consumed) to fresh parameters of the optimizer.
    """

    name: str
    optimizer_fn: rollouts.OptimizerFactory
    init: Callable[[chex.PRNGKey], chex.ArrayTree]


class TrainingState(NamedTuple):
    """State of a training between two episodes.

    Attributes:
      episode: Episodes trained on so far, `int32[]`.
      params: Parameters of the optimizer.
      opt_state: State of the meta-optimizer.
      best_params: Parameters with the best validation score.
      best_score: Their score, `float32[]`.
      since_best: Validations since then, `int32[]`.
    """

    episode: chex.Array
    params: chex.ArrayTree
    opt_state: optax.OptState
    best_params: chex.ArrayTree
    best_score: chex.Array
    since_best: chex.Array


def unroll(
    optimizer: optax.GradientTransformation,
    task: Task,
    start: tuple[Any, optax.OptState],
    keys: chex.PRNGKey,
    *,
    objective: Literal["loss", "log_loss"] = "loss",
    second_derivatives: bool = False,
) -> tuple[chex.Array, tuple[tuple[Any, optax.OptState], chex.Array]]:
    """Runs U optimizer steps and returns their meta-objective.

    Args:
      optimizer: The optimizer; its parameters may be traced.
      task: The task to optimize.
      start: Parameters of the task, and the optimizer's state.
      keys: `key[U + 1]`, one for the batch of each step and one for the batch that the last step's
        parameters are evaluated on; consumed.
      objective: As in `BackpropagationConfig`.
      second_derivatives: As in `BackpropagationConfig`.

    Returns:
      The sum of the losses after each step, or of their logarithms, `float32[]`; parameters and
      state after the last step; and the losses before each step, `float32[U]`.
    """
    tx = optax.with_extra_args_support(optimizer)

    def step(carry: Any, key: chex.PRNGKey) -> tuple[Any, chex.Array]:
        params, state = carry
        loss, grads = jax.value_and_grad(task.loss)(params, task.batch(key))
        inputs = (grads, loss) if second_derivatives else jax.lax.stop_gradient((grads, loss))
        updates, state = tx.update(inputs[0], state, params, value=inputs[1])
        return (optax.apply_updates(params, updates), state), loss

    end, losses = jax.lax.scan(step, start, keys[:-1])
    # The first loss does not depend on the optimizer.
    outcomes = jnp.append(losses[1:], task.loss(end[0], task.batch(keys[-1])))
    if objective == "log_loss":
        outcomes = jnp.log(outcomes)
    return jnp.sum(outcomes), (end, losses)


class Trainer:
    """Trains an optimizer at the first of the config's learning rates."""

    def __init__(self, optimizer: TrainableOptimizer, config: BackpropagationConfig):
        """Builds the meta-optimizer.

        Args:
          optimizer: The optimizer to train.
          config: Hyperparameters.
        """
        self._optimizer = optimizer
        self._config = config
        self._meta_optimizer = _training.skip_nonfinite(
            optax.chain(
                optax.clip_by_global_norm(config.max_gradient_norm),
                optax.adam(config.learning_rates[0]),
            )
        )

    def train(
        self,
        families: Sequence[Family],
        label: str,
        *,
        seed: int,
        folder: str | os.PathLike[str] | None,
        show_progress: bool,
    ) -> tuple[TrainingState, list[dict[str, Any]]]:
        """Runs the whole training; the arguments are those of `bptt.train`.

        Returns:
          The final state, and the history.
        """
        config = self._config
        init_key, stream = jax.random.split(jax.random.key(seed))
        names = [family.name for family in families]
        identity = {"families": names, "config": repr(config), "seed": seed}
        store = run_folder.Store(folder, identity)
        state = store.resume(lambda: self.init(init_key), lambda state: int(state.episode))
        episode_fns = [
            jax.jit(functools.partial(self.episode, family), donate_argnums=0)
            for family in families
        ]
        validation_key = jax.random.key(_training.VALIDATION_KEY)
        examples = [
            rollouts.draw(family, jax.random.split(validation_key, config.validation_tasks))
            for family in families
        ]

        def update(number: int, state: TrainingState) -> TrainingState:
            keys = jax.random.split(jax.random.fold_in(stream, number), config.tasks)
            index = number % len(families)
            state, _ = episode_fns[index](state, *rollouts.draw(families[index], keys))
            return state

        loop = _training.Loop(
            episodes=config.episodes,
            episodes_per_update=1,
            validate_every=config.validate_every,
            update=update,
            validate=lambda state: self._validate(state, families, examples),
            describe=lambda state, entry: (
                f"score {entry['score']:.4f}, best {float(state.best_score):.4f}"
            ),
            should_stop=lambda state: int(state.since_best) > config.patience,
        )
        state = loop.run(store, state, label=label, show=show_progress)
        return state, store.history

    def init(self, key: chex.PRNGKey) -> TrainingState:
        """Returns the state of a new training. Consumes `key`."""
        params = self._optimizer.init(key)
        return TrainingState(
            episode=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=self._meta_optimizer.init(params),
            best_params=jax.tree.map(jnp.array, params),
            best_score=jnp.full((), jnp.inf, jnp.float32),
            since_best=jnp.zeros((), jnp.int32),
        )

    def episode(
        self, family: Family, state: TrainingState, instances: Any, keys: chex.PRNGKey
    ) -> tuple[TrainingState, chex.Array]:
        """Trains on one episode, with a meta-update after each unroll.

        Args:
          family: Family of the tasks.
          state: State of the training.
          instances: Instances of the tasks, with a leading axis `[tasks]`.
          keys: `key[tasks]`, consumed.

        Returns:
          The next state, and the mean losses over tasks before each step, `float32[horizon]`.
        """
        config = self._config
        pairs = jax.vmap(jax.random.split)(keys)

        def init(instance: Any, key: chex.PRNGKey) -> tuple[Any, optax.OptState]:
            params = family.task(instance).init(key)
            return params, self._optimizer.optimizer_fn(state.params).init(params)

        def objective(params: chex.ArrayTree, starts: Any, step_keys: chex.PRNGKey) -> Any:
            def task_objective(instance: Any, start: Any, keys: chex.PRNGKey) -> Any:
                return unroll(
                    self._optimizer.optimizer_fn(params),
                    family.task(instance),
                    start,
                    keys,
                    objective=config.objective,
                    second_derivatives=config.second_derivatives,
                )

            totals, rest = jax.vmap(task_objective)(instances, starts, step_keys)
            return jnp.mean(totals), rest

        def train_on_unroll(carry: Any, number: chex.Array) -> tuple[Any, chex.Array]:
            params, opt_state, starts = carry
            step_keys = jax.vmap(
                lambda key: jax.random.split(jax.random.fold_in(key, number), config.unroll + 1)
            )(pairs[:, 1])
            gradient, (ends, losses) = jax.grad(objective, has_aux=True)(params, starts, step_keys)
            updates, opt_state = self._meta_optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state, ends), jnp.mean(losses, 0)

        starts = jax.vmap(init)(instances, pairs[:, 0])
        (params, opt_state, _), losses = jax.lax.scan(
            train_on_unroll,
            (state.params, state.opt_state, starts),
            jnp.arange(config.horizon // config.unroll),
        )
        state = state._replace(episode=state.episode + 1, params=params, opt_state=opt_state)
        return state, losses.reshape(-1)

    def _validate(
        self,
        state: TrainingState,
        families: Sequence[Family],
        examples: Sequence[tuple[Any, chex.PRNGKey]],
    ) -> tuple[TrainingState, dict[str, Any]]:
        """Updates the best parameters; also returns an entry for the history."""
        curves = [
            jnp.mean(
                rollouts.rollouts(
                    family,
                    self._optimizer.optimizer_fn,
                    state.params,
                    *drawn,
                    num_steps=self._config.horizon,
                    vectorize=self._config.tasks > 1,
                ),
                axis=0,
            )
            for family, drawn in zip(families, examples, strict=True)
        ]
        score = jnp.mean(jnp.log(jnp.stack(curves)))
        better = bool(score < state.best_score)  # False for NaN.
        if better:
            state = state._replace(
                best_params=jax.tree.map(jnp.array, state.params), best_score=score
            )
        state = state._replace(
            since_best=jnp.where(better, 0, state.since_best + 1).astype(jnp.int32)
        )
        entry = {
            "round": int(state.episode),
            "skipped": int(state.opt_state.total_notfinite),
            "score": float(score),
            "final_loss": float(jnp.mean(jnp.stack(curves)[:, -1])),
        }
        return state, entry
