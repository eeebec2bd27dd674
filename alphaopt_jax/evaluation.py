"""Training with any optax optimizer on any task, for many seeds and learning rates at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import time
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.task import Family, Task

RateFactory = Callable[[chex.Numeric], optax.GradientTransformation]
"""Maps a learning rate, which may be traced, to an optimizer."""
HorizonFactory = Callable[[int], optax.GradientTransformation]
"""Maps the planned number of updates to an optimizer."""
EvaluationParams = Callable[[Any, chex.ArrayTree], chex.ArrayTree]
"""Maps an optimizer's state and the trained parameters to the parameters to evaluate."""

# Steps between two progress reports; the losses of a chunk are one array.
_CHUNK = 100
_MEASUREMENT_KEY = 0x5EED  # Seed of the fixed training batches for `Outcome.train_losses`.


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """Options of `train` and `train_rates`.

    Attributes:
      checkpoints: Numbers of updates, below the total, after which to measure losses as well.
      num_batches: Number of fixed training batches that training losses are averaged over.
      evaluation_params: For optimizers, such as schedule-free ones, whose parameters to evaluate
        differ from those they train at.
      vectorize: Whether all runs make each step at once (`vmap`), which is fastest for most
        optimizers. Under `vmap`, a rare branch of an optimizer (`cond`), such as an agent's
        learning, is computed at every step; with False the runs follow one another instead.
      on_progress: Called with the number of completed steps, every hundred steps and at the end.
    """

    checkpoints: Sequence[int] = ()
    num_batches: int = 32
    evaluation_params: EvaluationParams | None = None
    vectorize: bool = True
    on_progress: Callable[[int], None] | None = None


_DEFAULT_OPTIONS = TrainingOptions()


class Outcome(NamedTuple):
    """Losses of training runs with `S` seeds, `T` updates and `C` checkpoints.

    Results of `train_rates` have an axis for `R` learning rates after that of the seeds.

    Attributes:
      curves: `float32[S, T]`, loss of each training step's batch; may be non-finite.
      checkpoints: Numbers of updates after which losses were measured; the last is `T`.
      train_losses: `float32[S, C]`, mean loss over fixed training batches, the same for every
        optimizer and seed.
      evaluation_losses: `float32[S, C]`, the task's evaluation loss.
      initial_losses: `float32[S]`, as `train_losses`, before the first update.
      seconds: Wall-clock time of the training steps of all runs, without compilation.
    """

    curves: np.ndarray
    checkpoints: tuple[int, ...]
    train_losses: np.ndarray
    evaluation_losses: np.ndarray
    initial_losses: np.ndarray
    seconds: float

    @property
    def num_updates(self) -> int:
        """Number of updates of each run."""
        return self.checkpoints[-1]

    @property
    def final_train_losses(self) -> np.ndarray:
        """`float32[S]`: training losses at the final parameters."""
        return self.train_losses[..., -1]

    @property
    def final_evaluation_losses(self) -> np.ndarray:
        """`float32[S]`: evaluation losses at the final parameters."""
        return self.evaluation_losses[..., -1]


class Row(NamedTuple):
    """Results of one optimizer on one task with one number of steps.

    Attributes:
      optimizer: Name of the optimizer.
      task: Name of the task.
      num_steps: Number of updates.
      train_losses: `float32[S]`, training losses at the final parameters, one per seed.
      evaluation_losses: `float32[S]`, evaluation losses at the final parameters.
      initial_losses: `float32[S]`, training losses before the first update.
      seconds: Wall-clock time of one training step of one run.
    """

    optimizer: str
    task: str
    num_steps: int
    train_losses: np.ndarray
    evaluation_losses: np.ndarray
    initial_losses: np.ndarray
    seconds: float

    @property
    def train_loss(self) -> float:
        """Training loss, mean over the seeds."""
        return float(np.mean(self.train_losses))

    @property
    def evaluation_loss(self) -> float:
        """Evaluation loss, mean over the seeds."""
        return float(np.mean(self.evaluation_losses))

    @property
    def diverged(self) -> int:
        """Number of seeds whose final training loss is non-finite or above the initial one."""
        return int(np.sum(~(self.train_losses <= self.initial_losses)))


def train(
    task: Task | Family,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    seeds: Sequence[int],
    options: TrainingOptions = _DEFAULT_OPTIONS,
) -> Outcome:
    """Trains with one optimizer from several seeds.

    Args:
      task: Task to minimize, or a family, of which the task drawn with key 0 is used. Data of a
        family is an argument of the compiled training; data of a task is compiled into it.
      optimizer: Any optax optimizer; each batch's loss is passed to it as `value`.
      num_steps: Number of updates of each run.
      seeds: Seeds of the initial parameters and training batches, the same for every optimizer.
      options: Further options.

    Returns:
      The losses, as NumPy arrays.

    Raises:
      ValueError: `seeds` is empty, or a checkpoint is not between 1 and `num_steps`.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> def loss(params, batch=None): return jnp.sum(params**2)
      >>> def init(key): return jax.random.normal(key, (3,))
      >>> bowl = Task("bowl", init, lambda key: None, loss, loss)
      >>> outcome = train(bowl, optax.sgd(0.1), 50, seeds=(0, 1))
      >>> outcome.curves.shape, bool((outcome.final_train_losses < 1e-6).all())
      ((2, 50), True)
    """
    outcome = train_rates(task, lambda rate: optimizer, (1.0,), num_steps, seeds, options)
    return outcome._replace(
        curves=outcome.curves[:, 0],
        train_losses=outcome.train_losses[:, 0],
        evaluation_losses=outcome.evaluation_losses[:, 0],
    )


def train_rates(
    task: Task | Family,
    optimizer_fn: RateFactory,
    rates: Sequence[float],
    num_steps: int,
    seeds: Sequence[int],
    options: TrainingOptions = _DEFAULT_OPTIONS,
) -> Outcome:
    """Trains at several learning rates and from several seeds, in one compilation.

    Args:
      task: As for `train`.
      optimizer_fn: Maps a traced learning rate to the optimizer, such as `optax.adam`.
      rates: Learning rates. With one seed, all of them train on the same batches.
      num_steps: As for `train`.
      seeds: As for `train`.
      options: As for `train`.

    Returns:
      The losses, with an axis for the rates after that of the seeds: `curves` is
      `float32[S, R, T]`, the other losses are `float32[S, R, C]`.

    Raises:
      ValueError: `seeds` or `rates` is empty, or a checkpoint is not between 1 and `num_steps`.
    """
    if not seeds or not rates:
        raise ValueError(f"Nothing to run: seeds {tuple(seeds)}, rates {tuple(rates)}.")
    checkpoints = tuple(sorted({*options.checkpoints, num_steps}))
    if checkpoints[0] < 1 or checkpoints[-1] > num_steps:
        raise ValueError(f"Checkpoints {tuple(options.checkpoints)} must be in 1..{num_steps}.")
    family = _as_family(task)
    instance = family.sample(jax.random.key(0))
    rate_array = jnp.asarray(rates, jnp.float32)

    initial, streams = _start(family, instance, _keys(seeds))
    measure = functools.partial(_measure_all, family, options.num_batches, instance)
    initial_losses, _ = measure(jax.tree.map(lambda leaf: leaf[:, None], initial))
    init, advance = _program(family, optimizer_fn, options.vectorize)
    params, state = jax.jit(init)(rate_array, initial)
    compiled = (
        jax.jit(advance).lower(instance, rate_array, streams, params, state, 0, num_steps).compile()
    )
    curves, measured = [], []
    step, seconds = 0, 0.0
    while step < num_steps:
        stop = min(step + _CHUNK, *(each for each in checkpoints if each > step))
        began = time.perf_counter()
        params, state, losses = compiled(instance, rate_array, streams, params, state, step, stop)
        curves.append(np.asarray(losses)[..., : stop - step])
        seconds += time.perf_counter() - began
        step = stop
        if step in checkpoints:
            evaluated = params
            if options.evaluation_params is not None:
                evaluated = jax.jit(jax.vmap(jax.vmap(options.evaluation_params)))(state, params)
            measured.append(measure(evaluated))
        if options.on_progress is not None:
            options.on_progress(step)
    train_losses, evaluation_losses = (
        np.stack(each, axis=-1) for each in zip(*measured, strict=True)
    )
    return Outcome(
        curves=np.concatenate(curves, axis=-1),
        checkpoints=checkpoints,
        train_losses=train_losses,
        evaluation_losses=evaluation_losses,
        initial_losses=initial_losses[:, 0],
        seconds=seconds,
    )


def evaluate(
    optimizers: Mapping[str, HorizonFactory],
    tasks: Sequence[Task | Family],
    horizons: Sequence[int],
    seeds: Sequence[int],
    *,
    on_row: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Compares optimizers on several tasks.

    Args:
      optimizers: Functions from the number of steps to an optimizer, by name.
      tasks: Tasks to train on.
      horizons: Numbers of steps; each is a separate training.
      seeds: Seeds of the runs; the same seed means the same initial parameters and batches.
      on_row: Called with every row as soon as it is complete.

    Returns:
      One row per task, horizon and optimizer, in that order of nesting.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> def loss(params, batch=None): return jnp.sum(params**2)
      >>> def init(key): return jax.random.normal(key, (3,))
      >>> bowl = Task("bowl", init, lambda key: None, loss, loss)
      >>> methods = {"slow": lambda num_steps: optax.sgd(1e-3), "fast": lambda n: optax.sgd(0.1)}
      >>> slow, fast = evaluate(methods, [bowl], horizons=[20], seeds=[0, 1])
      >>> slow.optimizer, fast.train_loss < slow.train_loss
      ('slow', True)
    """
    rows = []
    for task in tasks:
        for horizon in horizons:
            for name, optimizer_fn in optimizers.items():
                outcome = train(task, optimizer_fn(horizon), horizon, seeds)
                row = Row(
                    optimizer=name,
                    task=task.name,
                    num_steps=horizon,
                    train_losses=outcome.final_train_losses,
                    evaluation_losses=outcome.final_evaluation_losses,
                    initial_losses=outcome.initial_losses,
                    seconds=outcome.seconds / (horizon * len(seeds)),
                )
                rows.append(row)
                if on_row is not None:
                    on_row(row)
    return rows


def exponential_average(curves: np.ndarray, decay: float = 0.95) -> np.ndarray:
    """Returns exponential moving averages of training curves, beginning with the first value.

    Args:
      curves: `float[..., T]`. After a non-finite value, the average is non-finite as well.
      decay: Weight of the previous average, between 0 and 1.

    Returns:
      `float64[..., T]`, the averages.

    Example:
      >>> exponential_average(np.array([1.0, 0.0, 0.0]), decay=0.5).tolist()
      [1.0, 0.5, 0.25]
    """
    averages = np.asarray(curves, np.float64).copy()
    with np.errstate(invalid="ignore", over="ignore"):
        for step in range(1, averages.shape[-1]):
            averages[..., step] *= 1.0 - decay
            averages[..., step] += decay * averages[..., step - 1]
    return averages


def _as_family(task: Task | Family) -> Family:
    if isinstance(task, Family):
        return task
    return Family(task.name, sample=lambda key: (), task=lambda instance: task)


def _keys(seeds: Sequence[int]) -> chex.PRNGKey:
    return jnp.stack([jax.random.key(seed) for seed in seeds])


@functools.partial(jax.jit, static_argnums=0)
def _start(family: Family, instance: Any, keys: chex.PRNGKey) -> tuple[Any, chex.PRNGKey]:
    """Returns initial parameters, with a leading axis `[S]`, and keys of the batches, `key[S]`."""
    task = family.task(instance)

    def of_seed(key: chex.PRNGKey) -> tuple[Any, chex.PRNGKey]:
        init_key, stream = jax.random.split(key)
        return task.init(init_key), stream

    return jax.vmap(of_seed)(keys)


def _program(
    family: Family, optimizer_fn: RateFactory, vectorize: bool
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns two functions to compile: the optimizers' `init`, and a chunk of training steps.

    Parameters and states have leading axes `[S, R]` for seeds and rates. The parameters passed to
    `init` have only `[S]`.
    """

    def init(rates: chex.Array, params: Any) -> tuple[Any, Any]:
        def of_run(rate: chex.Array, params: Any) -> tuple[Any, Any]:
            return params, optax.with_extra_args_support(optimizer_fn(rate)).init(params)

        def of_seed(params: Any) -> tuple[Any, Any]:
            # `out_axes=0` repeats the parameters, which do not depend on the rate.
            return jax.vmap(of_run, in_axes=(0, None), out_axes=0)(rates, params)

        return jax.vmap(of_seed)(params)

    def advance(
        instance: Any,
        rates: chex.Array,
        streams: chex.PRNGKey,
        params: Any,
        state: Any,
        start: chex.Array,
        stop: chex.Array,
    ) -> tuple[Any, Any, chex.Array]:
        task = family.task(instance)

        def of_run(
            rate: chex.Array, stream: chex.PRNGKey, params: Any, state: Any
        ) -> tuple[Any, Any, chex.Array]:
            train_step = rollouts.training_step(task, optimizer_fn(rate))

            def step(index: chex.Array, carry: tuple[Any, Any, chex.Array]) -> Any:
                params, state, losses = carry
                key = jax.random.fold_in(stream, index)
                (params, state), loss = train_step((params, state), key)
                return params, state, losses.at[index - start].set(loss)

            return jax.lax.fori_loop(start, stop, step, (params, state, jnp.zeros(_CHUNK)))

        if vectorize:  # Batches depend on the seed alone: drawn once for all of its rates.
            of_seed = jax.vmap(of_run, in_axes=(0, None, 0, 0))
            return jax.vmap(of_seed, in_axes=(None, 0, 0, 0))(rates, streams, params, state)

        def one_seed(each: tuple[Any, Any, Any]) -> tuple[Any, Any, chex.Array]:
            stream, params, state = each
            return jax.lax.map(lambda run: of_run(run[0], stream, *run[1:]), (rates, params, state))

        return jax.lax.map(one_seed, (streams, params, state))

    return init, advance


def _measure_all(
    family: Family, num_batches: int, instance: Any, params: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Returns training and evaluation losses, `float32[S, R]` each, of parameters `[S, R, ...]`.

    Runs are measured one after the other: this compiles once for any number of seeds and rates,
    and large evaluation data fits into memory.
    """
    leaves, structure = jax.tree.flatten(jax.device_get(params))
    shape = leaves[0].shape[:2]
    measured = np.zeros((2, *shape), np.float32)
    for place in np.ndindex(shape):
        run = jax.tree.unflatten(structure, [leaf[place] for leaf in leaves])
        measured[(slice(None), *place)] = _measure(family, num_batches, instance, run)
    return measured[0], measured[1]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _measure(family: Family, num_batches: int, instance: Any, params: Any) -> chex.Array:
    """Returns training and evaluation loss of one run's parameters, `float32[2]`."""
    task = family.task(instance)
    keys = jax.random.split(jax.random.key(_MEASUREMENT_KEY), num_batches)
    losses = jax.lax.map(lambda key: task.loss(params, task.batch(key)), keys)
    return jnp.stack([jnp.mean(losses), task.evaluation_loss(params)])
