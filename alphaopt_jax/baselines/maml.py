"""Meta-learned initial parameters: Reptile, first-order MAML, MAML and Meta-SGD.

In each episode a network is trained from the current initial parameters by an inner optimizer. Then
the initial parameters are updated

- towards the trained parameters (Reptile);
- along the gradient of the queries' loss at the trained parameters (first-order MAML);
- along the gradient of that loss through the training (MAML). If the inner optimizer has parameters
  of its own, they are learned too; with one learning rate per parameter this is Meta-SGD.

The inner optimizer may be any optax transformation, such as AlphaOpt with `learn=False`.

Sources: Finn, Abbeel & Levine 2017, *Model-Agnostic Meta-Learning for Fast Adaptation of Deep
Networks*; Nichol, Achiam & Schulman 2018, *On First-Order Meta-Learning Algorithms*; Li, Zhou, Chen
& Li 2017, *Meta-SGD: Learning to Learn Quickly for Few-Shot Learning*.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import os
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import optax

from alphaopt_jax._storage import run_folder
from alphaopt_jax.baselines import _training
from alphaopt_jax.baselines._inner_loop import Algorithm, Learned, make_evaluate, meta_gradient
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.task import Family

__all__ = [
    "Algorithm",
    "Families",
    "InitializationConfig",
    "InitializationResult",
    "InnerOptimizer",
    "Learned",
    "scale_by_factors",
    "scale_by_rates",
    "train_initialization",
]

_MAX_GRADIENT_NORM = 10.0


@dataclasses.dataclass(frozen=True)
class InitializationConfig:
    """Hyperparameters of `train_initialization`.

    Attributes:
      algorithm: "reptile", "fomaml" (first-order MAML) or "maml"; Meta-SGD is "maml" with
        `scale_by_rates` as the inner optimizer.
      num_steps: Training steps per episode.
      episodes: Number of training episodes.
      meta_batch_size: Episodes per update.
      learning_rate: Learning rate of Adam; for Reptile, the step towards the trained parameters, as
        a fraction of the distance. It decays linearly to a tenth.
      validate_every: Episodes between two validations; a multiple of `meta_batch_size`.
      validation_episodes: Episodes per validation, the same ones each time.

    Raises:
      ValueError: `validate_every` is not a multiple of `meta_batch_size`.
    """

    algorithm: Algorithm
    num_steps: int
    episodes: int = 1000
    meta_batch_size: int = 4
    learning_rate: float = 1e-3
    validate_every: int = 100
    validation_episodes: int = 40

    def __post_init__(self) -> None:
        """Checks that validations fall between updates."""
        if self.validate_every % self.meta_batch_size:
            raise ValueError(
                f"validate_every={self.validate_every} is not a multiple of"
                f" meta_batch_size={self.meta_batch_size}."
            )


@dataclasses.dataclass(frozen=True)
class InnerOptimizer:
    """The optimizer that trains networks within episodes.

    Attributes:
      name: Name in the progress display and in checkpoints.
      optimizer_fn: From the optimizer's parameters to the optimizer.
      init: From initial parameters of the network to initial parameters of the optimizer.
    """

    name: str
    optimizer_fn: rollouts.OptimizerFactory
    init: Callable[[chex.ArrayTree], chex.ArrayTree] = lambda params: {}


class Families(NamedTuple):
    """Families of episodes, whose tasks are `EpisodeTask`s.

    Attributes:
      training: Episodes to train on.
      validation: Episodes to select the best parameters on.
    """

    training: Family
    validation: Family


class InitializationResult(NamedTuple):
    """Result of `train_initialization`.

    Attributes:
      learned: The best parameters by validation accuracy, NumPy arrays.
      accuracy: Their mean accuracy on the queries of the validation episodes.
      history: One entry per validation: "round" (episodes before it), and "accuracy" and "loss" on
        the queries.
    """

    learned: Learned
    accuracy: float
    history: list[dict[str, Any]]


class _TrainingState(NamedTuple):
    """State of a training between two updates.

    Attributes:
      episode: Episodes trained on so far, `int32[]`.
      learned: The current parameters.
      opt_state: State of the meta-optimizer.
      best: The parameters with the best validation accuracy.
      best_accuracy: Their accuracy, `float32[]`.
    """

    episode: Int[Array, ""]
    learned: Learned
    opt_state: optax.OptState
    best: Learned
    best_accuracy: Float[Array, ""]


def scale_by_factors(factors: chex.ArrayTree) -> optax.GradientTransformation:
    """Multiplies the update of every parameter; to be chained after an optimizer.

    Args:
      factors: A tree like the parameters, or a prefix of it with one factor per subtree.

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
    """Gradient descent with one learning rate per parameter, as in Meta-SGD.

    Args:
      rates: A tree like the parameters, or a prefix of it with one rate per subtree.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = scale_by_rates({"w": jnp.array([0.5, 2.0])})
      >>> updates, _ = tx.update({"w": jnp.array([1.0, 1.0])}, tx.init({"w": jnp.zeros(2)}))
      >>> updates["w"].tolist()
      [-0.5, -2.0]
    """
    return scale_by_factors(optax.tree.scale(-1.0, rates))


def train_initialization(
    families: Families,
    optimizer: InnerOptimizer,
    config: InitializationConfig,
    *,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    show_progress: bool = True,
) -> InitializationResult:
    """Learns initial parameters of a network and, with "maml", the inner optimizer's parameters.

    Args:
      families: Episodes for training and validation.
      optimizer: The optimizer that trains networks within episodes.
      config: Hyperparameters.
      seed: Random seed of the whole training.
      folder: Folder for checkpoints; an interrupted training continues from the latest one.
      show_progress: True to show progress.

    Returns:
      The best parameters, and the history.

    Raises:
      ValueError: `folder` holds another training.

    Example:
      >>> import optax
      >>> from alphaopt_jax.tasks import omniglot
      >>> family = omniglot.episode_family(
      ...     omniglot.synthetic_omniglot().training, omniglot.few_shot_protocol(3, 1), width=4
      ... )
      >>> config = InitializationConfig(
      ...     "fomaml", 2, episodes=4, validate_every=4, validation_episodes=2
      ... )
      >>> sgd = InnerOptimizer("SGD", lambda params: optax.sgd(0.1))
      >>> result = train_initialization(Families(family, family), sgd, config, show_progress=False)
      >>> [entry["round"] for entry in result.history]
      [0, 4]
    """
    identity = {
        "family": families.training.name,
        "label": optimizer.name,
        "config": repr(config),
        "seed": seed,
    }
    store = run_folder.Store(folder, identity)
    meta_optimizer = _meta_optimizer(config)
    init_key, stream = jax.random.split(jax.random.key(seed))
    state = store.resume(
        lambda: _init(families.training, optimizer, meta_optimizer, init_key),
        lambda state: int(state.episode),
    )
    update_fn = jax.jit(
        _make_update(families.training, optimizer, meta_optimizer, config), donate_argnums=0
    )
    evaluate = jax.jit(make_evaluate(families.validation, optimizer.optimizer_fn, config.num_steps))
    draw = jax.jit(functools.partial(rollouts.draw, families.training))
    validation_key = jax.random.key(_training.VALIDATION_KEY)
    examples = rollouts.draw(
        families.validation, jax.random.split(validation_key, config.validation_episodes)
    )

    def update(number: int, state: _TrainingState) -> _TrainingState:
        keys = jax.random.split(jax.random.fold_in(stream, number), config.meta_batch_size)
        return update_fn(state, *draw(keys))

    loop = _training.Loop(
        episodes=config.episodes,
        episodes_per_update=config.meta_batch_size,
        validate_every=config.validate_every,
        update=update,
        validate=lambda state: _validate(state, evaluate(state.learned, *examples)),
        describe=lambda state, entry: (
            f"accuracy {entry['accuracy']:.3f}, best {float(state.best_accuracy):.3f}"
        ),
    )
    state = loop.run(store, state, label=optimizer.name, show=show_progress)
    if int(state.episode) == config.episodes:
        # Saved one update past the end, so that a finished training is not validated again.
        state = state._replace(episode=state.episode + config.meta_batch_size)
        store.save(int(state.episode), state)
    return InitializationResult(
        jax.device_get(state.best), float(state.best_accuracy), store.history
    )


def _meta_optimizer(config: InitializationConfig) -> optax.GradientTransformation:
    updates = max(config.episodes // config.meta_batch_size, 1)
    rate = optax.linear_schedule(config.learning_rate, 0.1 * config.learning_rate, updates)
    if config.algorithm == "reptile":
        return _training.skip_nonfinite(optax.sgd(rate))
    return _training.skip_nonfinite(
        optax.chain(optax.clip_by_global_norm(_MAX_GRADIENT_NORM), optax.adam(rate))
    )


def _init(
    family: Family,
    optimizer: InnerOptimizer,
    meta_optimizer: optax.GradientTransformation,
    key: chex.PRNGKey,
) -> _TrainingState:
    """State of a new training. Consumes `key`."""
    task_key, init_key = jax.random.split(key)
    params = family.draw(task_key).init(init_key)
    learned = Learned(params, optimizer.init(params))
    return _TrainingState(
        episode=jnp.zeros((), jnp.int32),
        learned=learned,
        opt_state=meta_optimizer.init(learned),
        best=jax.tree.map(jnp.array, learned),
        best_accuracy=jnp.full((), -1.0, jnp.float32),
    )


def _make_update(
    family: Family,
    optimizer: InnerOptimizer,
    meta_optimizer: optax.GradientTransformation,
    config: InitializationConfig,
) -> Callable[..., _TrainingState]:
    """One update, to compile; it maps a state, instances and keys to the next state."""

    def update(state: _TrainingState, instances: Any, keys: chex.PRNGKey) -> _TrainingState:
        def episode_gradient(episode: tuple[Any, chex.PRNGKey]) -> Learned:
            instance, key = episode
            task: Any = family.task(instance)
            step_keys = jax.random.split(key, config.num_steps)
            return meta_gradient(
                task, optimizer.optimizer_fn, state.learned, step_keys, config.algorithm
            )

        gradients = rollouts.map_episodes(episode_gradient, (instances, keys))
        gradient = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), gradients)
        updates, opt_state = meta_optimizer.update(gradient, state.opt_state, state.learned)
        return state._replace(
            episode=state.episode + config.meta_batch_size,
            learned=optax.apply_updates(state.learned, updates),
            opt_state=opt_state,
        )

    return update


def _validate(
    state: _TrainingState, scores: tuple[chex.Array, chex.Array]
) -> tuple[_TrainingState, dict[str, Any]]:
    """Updates the best parameters; also returns an entry for the history."""
    accuracy, loss = scores
    better = accuracy > state.best_accuracy
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), state.learned, state.best)
    state = state._replace(best=best, best_accuracy=jnp.maximum(accuracy, state.best_accuracy))
    entry = {"round": int(state.episode), "accuracy": float(accuracy), "loss": float(loss)}
    return state, entry
