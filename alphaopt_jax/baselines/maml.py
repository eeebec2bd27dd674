"""Learned initial parameters: where a network is to start, so that it soon learns an episode.

From the parameters that are learned, the network is trained on an episode by some optimizer. Then
they are moved

- towards where the training ended (Reptile);
- along the queries' gradient there (first-order MAML);
- along that gradient, differentiated through the training (MAML); where what the optimizer is made
  of is learned as well, a rate for each parameter, this is Meta-SGD.

The optimizer may be any of optax, a frozen agent among them.

Sources: Finn, Abbeel & Levine 2017, *Model-Agnostic Meta-Learning for Fast Adaptation of Deep
Networks*; Nichol, Achiam & Schulman 2018, *On First-Order Meta-Learning Algorithms*; Li, Zhou, Chen
& Li 2017, *Meta-SGD: Learning to Learn Quickly for Few-Shot Learning*.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import os
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key
import optax

from alphaopt_jax._storage import progress as progress_lib
from alphaopt_jax._storage import run_folder
from alphaopt_jax.baselines.bptt import skip_not_finite
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.omniglot.episodes import EpisodeTask
from alphaopt_jax.tasks.task import Family

Direction = Literal["end", "first_order", "second_order"]
_VALIDATION_KEY = 0x7A11D
_MAX_GRADIENT_NORM = 10.0


@dataclasses.dataclass(frozen=True)
class InitializationConfig:
    """Constants of the learning.

    Attributes:
      direction: Where the parameters are moved: to the training's "end" (Reptile), along the
        queries' gradient there ("first_order"), or along the same differentiated through the
        training ("second_order").
      num_steps: Steps of training in an episode.
      episodes: Episodes in all.
      episodes_at_once: Whose mean is one move.
      learning_rate: Of the Adam that follows gradients; of Reptile, the share of the way to the
        end. It falls to a tenth, linearly.
      validate_every: Episodes between two validations; a multiple of `episodes_at_once`.
      validation_episodes: Episodes to validate on, the same ones each time.

    Raises:
      ValueError: Moves do not fill the time between two validations.
    """

    direction: Direction
    num_steps: int
    episodes: int = 1000
    episodes_at_once: int = 4
    learning_rate: float = 1e-3
    validate_every: int = 100
    validation_episodes: int = 40

    def __post_init__(self) -> None:
        """Refuses what does not fit, where it is made."""
        if self.validate_every % self.episodes_at_once:
            raise ValueError(
                f"Moves of {self.episodes_at_once} episodes do not fill the"
                f" {self.validate_every} between two validations."
            )


class Learned(NamedTuple):
    """What is learned.

    Attributes:
      params: The network's initial parameters; None where each task says where to start.
      made_of: What the optimizer is made of: rates of Meta-SGD, an empty tree for most.
    """

    params: chex.ArrayTree | None
    made_of: chex.ArrayTree


class Learning(NamedTuple):
    """Everything that the learning consists of, between two moves.

    Attributes:
      episode: How many there were, `int32[]`.
      learned: As it is now.
      outer: State of the optimizer that moves it.
      best: That with the best validation.
      best_accuracy: Its share of queries told right, `float32[]`.
    """

    episode: Int[Array, ""]
    learned: Learned
    outer: optax.OptState
    best: Learned
    best_accuracy: Float[Array, ""]


class InitializationResult(NamedTuple):
    """What comes out of `train_initialization`.

    Attributes:
      learned: The best by validation, NumPy arrays.
      accuracy: Its mean share of queries told right on the validation episodes.
      history: A line for each validation: "round" (the episodes before it), "accuracy" and "loss",
        of the queries.
    """

    learned: Learned
    accuracy: float
    history: list[dict[str, Any]]


def scale_by_factors(factors: chex.ArrayTree) -> optax.GradientTransformation:
    """Multiplies every parameter's update; to be chained after an optimizer.

    Args:
      factors: A tree like the parameters, or a prefix of theirs: one factor is one for all.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> tx = optax.chain(optax.sgd(0.1), scale_by_factors(jnp.array([10.0, 20.0])))
      >>> updates, _ = tx.update(jnp.array([1.0, 1.0]), tx.init(jnp.zeros(2)))
      >>> updates.tolist()
      [-1.0, -2.0]
    """

    def scale(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        del params
        return jax.tree.map(optax.tree.scale, factors, updates)

    return optax.stateless(scale)


def scale_by_rates(rates: chex.ArrayTree) -> optax.GradientTransformation:
    """Gradient descent with a rate for each parameter, as Meta-SGD learns them.

    Args:
      rates: A tree like the parameters, or a prefix of theirs: one rate is one for all.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = scale_by_rates({"w": jnp.array([0.5, 2.0])})
      >>> updates, _ = tx.update({"w": jnp.array([1.0, 1.0])}, tx.init({"w": jnp.zeros(2)}))
      >>> updates["w"].tolist()
      [-0.5, -2.0]
    """
    return scale_by_factors(optax.tree.scale(-1.0, rates))


def train_initialization(
    family: Family,
    validation: Family,
    make: rollouts.OptimizerFactory,
    made_of: Callable[[chex.ArrayTree], chex.ArrayTree],
    config: InitializationConfig,
    *,
    label: str,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    show: bool = True,
) -> InitializationResult:
    """Learns initial parameters, and what the optimizer is made of where it has a gradient.

    Args:
      family: Episodes to learn from, whose tasks are `EpisodeTask`s.
      validation: Episodes to choose by.
      make: From what the optimizer is made of to the optimizer.
      made_of: From initial parameters to what the optimizer is made of at first.
      config: The constants.
      label: What this is called in the display.
      seed: Decides everything that is drawn.
      folder: Where to keep checkpoints; learning that was interrupted goes on from the last.
      show: Whether to show progress.

    Returns:
      What was learned, and its history.

    Raises:
      ValueError: `folder` holds something else.

    Example:
      >>> import optax
      >>> from alphaopt_jax.tasks import omniglot
      >>> family = omniglot.episode_family(
      ...     omniglot.synthetic_omniglot().training, omniglot.few_shot_protocol(3, 1), width=4
      ... )
      >>> config = InitializationConfig(
      ...     "first_order", 2, episodes=4, validate_every=4, validation_episodes=2
      ... )
      >>> result = train_initialization(
      ...     family, family, lambda rate: optax.sgd(0.1), lambda params: {}, config,
      ...     label="first-order MAML", show=False,
      ... )
      >>> [line["round"] for line in result.history]
      [0, 4]
    """
    identity = {"family": family.name, "label": label, "config": repr(config), "seed": seed}
    store = run_folder.Store(folder, identity)
    outer = _outer(config)
    begin_key, stream = jax.random.split(jax.random.key(seed))

    def begin() -> Learning:
        task_key, init_key = jax.random.split(begin_key)
        params = family.draw(task_key).init(init_key)
        learned = Learned(params, made_of(params))
        return Learning(
            episode=jnp.zeros((), jnp.int32),
            learned=learned,
            outer=outer.init(learned),
            best=jax.tree.map(jnp.array, learned),
            best_accuracy=jnp.full((), -1.0, jnp.float32),
        )

    learning = store.restore(begin)
    history = store.read_history(int(learning.episode))
    move = jax.jit(_make_move(family, make, outer, config), donate_argnums=0)
    judge = jax.jit(make_judge(validation, make, config.num_steps))
    draw = jax.jit(functools.partial(rollouts.draw, family))
    examples = rollouts.draw(
        validation, jax.random.split(jax.random.key(_VALIDATION_KEY), config.validation_episodes)
    )
    best = 0.0
    with progress_lib.Progress(label, config.episodes, show=show) as progress:
        for number in range(int(learning.episode), config.episodes + 1, config.episodes_at_once):
            if number % config.validate_every == 0 or number == config.episodes:
                store.save(number, learning)
                learning, entry = _validate(learning, judge(learning.learned, *examples))
                store.append_history(entry)
                history.append(entry)
                best = float(learning.best_accuracy)
            progress.update(number, f"accuracy {history[-1]['accuracy']:.3f}, best {best:.3f}")
            if number == config.episodes:
                # One move past the last: who finds it there need not validate again.
                learning = learning._replace(episode=learning.episode + config.episodes_at_once)
                store.save(int(learning.episode), learning)
                break
            keys = jax.random.split(jax.random.fold_in(stream, number), config.episodes_at_once)
            learning = move(learning, *draw(keys))
    return InitializationResult(
        jax.device_get(learning.best), float(learning.best_accuracy), history
    )


def adapt(
    task: EpisodeTask, make: rollouts.OptimizerFactory, learned: Learned, keys: Key[Array, " steps"]
) -> chex.ArrayTree:
    """Trains on an episode from what was learned.

    Args:
      task: The episode.
      make: From what the optimizer is made of to the optimizer.
      learned: Where to start, and what the optimizer is made of.
      keys: `key[T]`, of the batches of T steps; consumed.

    Returns:
      The network's parameters. They can be differentiated with respect to `learned`.
    """
    optimizer = make(learned.made_of)
    # What a step computes is computed again where it is differentiated: T networks would not fit.
    step = jax.checkpoint(rollouts.training_step(task, optimizer))
    start = learned.params, optimizer.init(learned.params)
    (params, _), _ = jax.lax.scan(step, start, keys)
    return params


def outer_gradient(
    task: EpisodeTask,
    make: rollouts.OptimizerFactory,
    learned: Learned,
    keys: Key[Array, " steps"],
    direction: Direction,
) -> Learned:
    """What is to be gone against to do better in an episode like this one.

    Args:
      task: The episode.
      make: From what the optimizer is made of to the optimizer.
      learned: As it is now.
      keys: `key[T]`, of the batches of T steps; consumed.
      direction: As in `InitializationConfig`.

    Returns:
      A tree like `learned`. Only "second_order" says something of what the optimizer is made of.
    """

    def loss_after(learned: Learned) -> chex.Array:
        return task.evaluation_loss(adapt(task, make, learned, keys))

    if direction == "second_order":
        gradient: Learned = jax.grad(loss_after)(learned)
        return gradient
    end = adapt(task, make, learned, keys)
    if direction == "end":
        params = optax.tree.sub(learned.params, end)
    else:
        params = jax.grad(task.evaluation_loss)(end)
    return Learned(params, optax.tree.zeros_like(learned.made_of))


def make_judge(
    family: Family, make: rollouts.OptimizerFactory, num_steps: int
) -> Callable[..., tuple[Float[Array, ""], Float[Array, ""]]]:
    """How good it is to start from what was learned.

    Args:
      family: Of `EpisodeTask`s.
      make: From what the optimizer is made of to the optimizer.
      num_steps: Steps of training in an episode.

    Returns:
      A function to compile: from what was learned, instances and keys to the mean accuracy and the
      mean loss on the queries, both `float32[]`. Where `params` is None, networks start as their
      tasks say.
    """

    def judge(
        learned: Learned, instances: Any, keys: chex.PRNGKey
    ) -> tuple[chex.Array, chex.Array]:
        def of_episode(each: tuple[Any, chex.PRNGKey]) -> tuple[chex.Array, chex.Array]:
            instance, key = each
            task: Any = family.task(instance)
            init_key, stream = jax.random.split(key)
            start = learned
            if learned.params is None:
                start = learned._replace(params=task.init(init_key))
            params = adapt(task, make, start, jax.random.split(stream, num_steps))
            return task.accuracy(params), task.evaluation_loss(params)

        accuracies, losses = rollouts.over_episodes(of_episode, (instances, keys))
        return jnp.mean(accuracies), jnp.mean(losses)

    return judge


def _outer(config: InitializationConfig) -> optax.GradientTransformation:
    """What moves the initial parameters."""
    moves = max(config.episodes // config.episodes_at_once, 1)
    rate = optax.linear_schedule(config.learning_rate, 0.1 * config.learning_rate, moves)
    if config.direction == "end":
        return skip_not_finite(optax.sgd(rate))
    return skip_not_finite(
        optax.chain(optax.clip_by_global_norm(_MAX_GRADIENT_NORM), optax.adam(rate))
    )


def _make_move(
    family: Family,
    make: rollouts.OptimizerFactory,
    outer: optax.GradientTransformation,
    config: InitializationConfig,
) -> Callable[..., Learning]:
    """One move, to compile: from the learning, instances and keys `[episodes_at_once]`."""

    def move(learning: Learning, instances: Any, keys: chex.PRNGKey) -> Learning:
        def of_episode(each: tuple[Any, chex.PRNGKey]) -> Learned:
            instance, key = each
            task: Any = family.task(instance)
            step_keys = jax.random.split(key, config.num_steps)
            return outer_gradient(task, make, learning.learned, step_keys, config.direction)

        gradients = rollouts.over_episodes(of_episode, (instances, keys))
        gradient = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), gradients)
        updates, state = outer.update(gradient, learning.outer, learning.learned)
        return learning._replace(
            episode=learning.episode + config.episodes_at_once,
            learned=optax.apply_updates(learning.learned, updates),
            outer=state,
        )

    return move


def _validate(
    learning: Learning, judged: tuple[chex.Array, chex.Array]
) -> tuple[Learning, dict[str, Any]]:
    """Keeps what was learned if it is the best so far, and notes how good it is."""
    accuracy, loss = judged
    better = accuracy > learning.best_accuracy
    best = jax.tree.map(
        lambda new, old: jnp.where(better, new, old), learning.learned, learning.best
    )
    learning = learning._replace(
        best=best, best_accuracy=jnp.maximum(accuracy, learning.best_accuracy)
    )
    entry = {
        "round": int(learning.episode),
        "accuracy": float(accuracy),
        "loss": float(loss),
    }
    return learning, entry
