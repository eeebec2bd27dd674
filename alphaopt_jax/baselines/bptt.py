"""Backpropagation through time: how any differentiable optimizer learns.

An *episode* trains a batch of fresh tasks for `horizon` steps. It is cut into unrolls; after each,
what the optimizer is made of is moved along the gradient of the losses within it, and what went
before counts as given. The gradients that the optimizer sees count as given too (no second
derivatives), unless asked otherwise.

Source: Andrychowicz et al. 2016, *Learning to learn by gradient descent by gradient descent*,
section 2 and appendix.
"""

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

from alphaopt_jax._storage import progress as progress_lib
from alphaopt_jax._storage import run_folder
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.task import Family, Task

_VALIDATION_KEY = 0x7A11D
_SEARCH_EPISODES = 0.15  # Share of the training that each learning rate gets in the search.


@dataclasses.dataclass(frozen=True)
class BackpropagationConfig:
    """Constants of the training.

    Attributes:
      horizon: Steps in an episode.
      objective: What is made small: the sum of the losses, as in the paper, or that of their
        logarithms, for tasks whose losses are of different sizes.
      unroll: Steps that gradients go back through; divides `horizon`.
      tasks: Tasks that an episode trains at a time.
      second_derivatives: Whether the gradients that the optimizer sees are differentiated too.
      learning_rates: Of the Adam that moves the optimizer. Where there are several, each is tried
        for a while, and the one with the best validation is used.
      max_gradient_norm: Longer gradients of what the optimizer is made of are shortened to this.
      episodes: Episodes in all.
      validate_every: Episodes between two validations.
      validation_tasks: Tasks to validate on, the same ones each time.
      patience: Validations without a new best after which the training stops.

    Raises:
      ValueError: Unrolls do not fill an episode.
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
        """Refuses what does not fit, where it is made."""
        if self.horizon % self.unroll:
            raise ValueError(
                f"Unrolls of {self.unroll} steps do not fill an episode of {self.horizon}."
            )


class Training(NamedTuple):
    """Everything that a training consists of, between two episodes.

    Attributes:
      episode: How many there were, `int32[]`.
      params: What the optimizer is made of.
      adam: State of what moves it.
      best_params: Those with the best validation.
      best_score: Theirs, `float32[]`.
      since_best: Validations since then, `int32[]`.
    """

    episode: chex.Array
    params: chex.ArrayTree
    adam: optax.OptState
    best_params: chex.ArrayTree
    best_score: chex.Array
    since_best: chex.Array


class BackpropagationResult(NamedTuple):
    """What comes out of `train`.

    Attributes:
      params: What the best optimizer is made of, NumPy arrays.
      score: Mean log of the losses along its validation episodes, tasks of a family averaged first,
        as the paper's curves are.
      learning_rate: As chosen.
      history: A line for each validation: "round" (the episodes before it), "skipped" (the unrolls
        of them whose gradient was not finite, from which nothing was learned), and means over the
        families, "score" and "final_loss".
    """

    params: chex.ArrayTree
    score: float
    learning_rate: float
    history: list[dict[str, Any]]


def train(
    families: Sequence[Family],
    make: rollouts.OptimizerFactory,
    init: Callable[[chex.PRNGKey], chex.ArrayTree],
    config: BackpropagationConfig,
    *,
    label: str,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    show: bool = True,
) -> BackpropagationResult:
    """Trains an optimizer over tasks.

    Args:
      families: What to train on, one episode after the other.
      make: From what the optimizer is made of to the optimizer.
      init: From a key (consumed) to what it is made of at first.
      config: The constants.
      label: What the optimizer is called in the display and in `folder`.
      seed: Decides everything that is drawn.
      folder: Where to keep checkpoints; a training that was interrupted goes on from the last.
      show: Whether to show progress.

    Returns:
      What the optimizer is made of, and its history.

    Raises:
      ValueError: `folder` holds another training.

    Example:
      >>> import optax
      >>> from alphaopt_jax.tasks.papers import l2l
      >>> config = BackpropagationConfig(
      ...     horizon=10, unroll=5, episodes=2, validate_every=1, learning_rates=(1e-2,)
      ... )
      >>> result = train(
      ...     [l2l.quadratics()], optax.sgd, lambda key: jnp.float32(0.01), config, label="SGD",
      ...     show=False,
      ... )
      >>> len(result.history), bool(result.params > 0.01)
      (3, True)
    """

    def run(config: BackpropagationConfig, name: str) -> BackpropagationResult:
        place = None if folder is None else f"{os.fspath(folder)}/{name}"
        training = Backpropagation(families, make, init, config)
        return training.train(f"{label}, {name}", seed, place, show)

    chosen = config.learning_rates[0]
    if len(config.learning_rates) > 1:
        episodes = max(int(_SEARCH_EPISODES * config.episodes), 1)
        part = dataclasses.replace(config, episodes=episodes, patience=episodes)
        scores = {}
        for rate in config.learning_rates:
            result = run(dataclasses.replace(part, learning_rates=(rate,)), f"rate {rate:g}")
            # A rate that fell apart in the end would do so in the long training as well.
            scores[rate] = result.history[-1]["score"]
        chosen = min(scores, key=lambda rate: (scores[rate] != scores[rate], scores[rate]))
    return run(dataclasses.replace(config, learning_rates=(chosen,)), "training")


def unroll(
    optimizer: optax.GradientTransformation,
    task: Task,
    start: tuple[Any, optax.OptState],
    keys: chex.PRNGKey,
    *,
    objective: Literal["loss", "log_loss"] = "loss",
    second_derivatives: bool = False,
) -> tuple[chex.Array, tuple[tuple[Any, optax.OptState], chex.Array]]:
    """A few steps of training, and what is to be made small in them.

    Args:
      optimizer: The optimizer, made of something that is to be differentiated.
      task: What it optimizes.
      start: The task's parameters and the optimizer's state.
      keys: `key[U + 1]`, of the batches of U steps and of one more, which the last step's
        parameters are judged by; consumed.
      objective: What is made small.
      second_derivatives: Whether the gradients that the optimizer sees are differentiated too.

    Returns:
      Sum of the losses after each of the U steps, or of their logarithms, `float32[]`; parameters
      and state after them, and the losses before each step, `float32[U]`.
    """
    tx = optax.with_extra_args_support(optimizer)

    def step(carry: Any, key: chex.PRNGKey) -> tuple[Any, chex.Array]:
        params, state = carry
        loss, grads = jax.value_and_grad(task.loss)(params, task.batch(key))
        seen = (grads, loss) if second_derivatives else jax.lax.stop_gradient((grads, loss))
        updates, state = tx.update(seen[0], state, params, value=seen[1])
        return (optax.apply_updates(params, updates), state), loss

    end, losses = jax.lax.scan(step, start, keys[:-1])
    # The first loss is the start's, which is given.
    judged = jnp.append(losses[1:], task.loss(end[0], task.batch(keys[-1])))
    if objective == "log_loss":
        judged = jnp.log(judged)
    return jnp.sum(judged), (end, losses)


def skip_not_finite(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same optimizer, for which gradients that are not finite do not count, however many.

    Where an episode falls apart its gradient is not finite, and one such would be the end of all
    that was learned. The state counts them, as `total_notfinite`.
    """
    return optax.apply_if_finite(optimizer, max_consecutive_errors=10**9)


class Backpropagation:
    """One training, at the first of the learning rates."""

    def __init__(
        self,
        families: Sequence[Family],
        make: rollouts.OptimizerFactory,
        init: Callable[[chex.PRNGKey], chex.ArrayTree],
        config: BackpropagationConfig,
    ):
        """Keeps its arguments, which are those of `train`."""
        self._families = families
        self._make = make
        self._init = init
        self._config = config
        self._adam = skip_not_finite(
            optax.chain(
                optax.clip_by_global_norm(config.max_gradient_norm),
                optax.adam(config.learning_rates[0]),
            )
        )

    def train(self, label: str, seed: int, folder: str | None, show: bool) -> BackpropagationResult:
        """The whole training."""
        families, config = self._families, self._config
        init_key, stream = jax.random.split(jax.random.key(seed))
        names = [family.name for family in families]
        identity = {"families": names, "config": repr(config), "seed": seed}
        store = run_folder.Store(folder, identity)
        training = store.restore(lambda: self.begin(init_key))
        history = store.read_history(int(training.episode))
        episodes = [
            jax.jit(functools.partial(self.episode, family), donate_argnums=0)
            for family in families
        ]
        validation_key = jax.random.key(_VALIDATION_KEY)
        examples = [
            rollouts.draw(family, jax.random.split(validation_key, config.validation_tasks))
            for family in families
        ]
        with progress_lib.Progress(label, config.episodes, show=show) as progress:
            for number in range(int(training.episode), config.episodes + 1):
                if number % config.validate_every == 0 or number == config.episodes:
                    store.save(number, training)
                    training, entry = self._validate(training, examples)
                    store.append_history(entry)
                    history.append(entry)
                note = f"score {history[-1]['score']:.4f}, best {float(training.best_score):.4f}"
                progress.update(number, note)
                if number == config.episodes or int(training.since_best) > config.patience:
                    break
                keys = jax.random.split(jax.random.fold_in(stream, number), config.tasks)
                which = number % len(families)
                drawn = rollouts.draw(families[which], keys)
                training, _ = episodes[which](training, *drawn)
        return BackpropagationResult(
            jax.device_get(training.best_params),
            float(training.best_score),
            config.learning_rates[0],
            history,
        )

    def begin(self, key: chex.PRNGKey) -> Training:
        """The start. Consumes `key`."""
        params = self._init(key)
        return Training(
            episode=jnp.zeros((), jnp.int32),
            params=params,
            adam=self._adam.init(params),
            best_params=jax.tree.map(jnp.array, params),
            best_score=jnp.full((), jnp.inf, jnp.float32),
            since_best=jnp.zeros((), jnp.int32),
        )

    def episode(
        self, family: Family, training: Training, instances: Any, keys: chex.PRNGKey
    ) -> tuple[Training, chex.Array]:
        """One episode: a step of learning after each unroll.

        Args:
          family: Where the tasks are from.
          training: What was learned.
          instances: Of the tasks, with an axis `[tasks]` before their own.
          keys: `key[tasks]`, consumed.

        Returns:
          What was learned, and the losses before each step, `float32[horizon]`, their mean over the
          tasks.
        """
        config, task_of = self._config, family.task
        pairs = jax.vmap(jax.random.split)(keys)

        def begin(instance: Any, key: chex.PRNGKey) -> tuple[Any, optax.OptState]:
            params = task_of(instance).init(key)
            return params, self._make(training.params).init(params)

        def objective(made_of: chex.ArrayTree, starts: Any, step_keys: chex.PRNGKey) -> Any:
            def of_task(instance: Any, start: Any, keys: chex.PRNGKey) -> Any:
                return unroll(
                    self._make(made_of),
                    task_of(instance),
                    start,
                    keys,
                    objective=config.objective,
                    second_derivatives=config.second_derivatives,
                )

            totals, rest = jax.vmap(of_task)(instances, starts, step_keys)
            return jnp.mean(totals), rest

        def one_unroll(carry: Any, number: chex.Array) -> tuple[Any, chex.Array]:
            params, adam_state, starts = carry
            step_keys = jax.vmap(
                lambda key: jax.random.split(jax.random.fold_in(key, number), config.unroll + 1)
            )(pairs[:, 1])
            gradient, (ends, losses) = jax.grad(objective, has_aux=True)(params, starts, step_keys)
            updates, adam_state = self._adam.update(gradient, adam_state, params)
            return (optax.apply_updates(params, updates), adam_state, ends), jnp.mean(losses, 0)

        starts = jax.vmap(begin)(instances, pairs[:, 0])
        (params, adam_state, _), losses = jax.lax.scan(
            one_unroll,
            (training.params, training.adam, starts),
            jnp.arange(config.horizon // config.unroll),
        )
        training = training._replace(episode=training.episode + 1, params=params, adam=adam_state)
        return training, losses.reshape(-1)

    def _validate(
        self, training: Training, examples: Sequence[tuple[Any, chex.PRNGKey]]
    ) -> tuple[Training, dict[str, Any]]:
        curves = [
            jnp.mean(
                rollouts.rollouts(
                    family,
                    self._make,
                    training.params,
                    *drawn,
                    num_steps=self._config.horizon,
                    vectorize=self._config.tasks > 1,
                ),
                axis=0,
            )
            for family, drawn in zip(self._families, examples, strict=True)
        ]
        # What is not finite is no best.
        score = jnp.mean(jnp.log(jnp.stack(curves)))
        better = bool(score < training.best_score)
        if better:
            training = training._replace(
                best_params=jax.tree.map(jnp.array, training.params), best_score=score
            )
        training = training._replace(
            since_best=jnp.where(better, 0, training.since_best + 1).astype(jnp.int32)
        )
        entry = {
            "round": int(training.episode),
            "skipped": int(training.adam.total_notfinite),
            "score": float(score),
            "final_loss": float(jnp.mean(jnp.stack(curves)[:, -1])),
        }
        return training, entry
