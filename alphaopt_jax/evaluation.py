"""Running any optax optimizer on any task, many seeds and many learning rates at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import functools
import time
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax.tasks.task import Family, Task

RateFactory = Callable[[chex.Numeric], optax.GradientTransformation]
"""From a learning rate, which may be traced, to an optimizer."""
HorizonFactory = Callable[[int], optax.GradientTransformation]
"""From the planned number of updates to an optimizer."""
EvaluationParams = Callable[[Any, chex.ArrayTree], chex.ArrayTree]
"""From an optimizer's state and the trained parameters to those that should be judged."""

_CHUNK = (
    100  # Steps between two looks of a progress bar; all runs' losses of a chunk are one array.
)
_MEASUREMENT_KEY = 0x5EED  # Of the draw of training batches on which every result is measured.


class Outcome(NamedTuple):
    """What came out of training, on `S` seeds, with `T` updates and measured `C` times.

    Results of `train_rates` have an axis for `R` learning rates after that of the seeds.

    Attributes:
      curves: `float32[S, T]`, the loss of every training step's batch, non-finite ones too.
      checkpoints: The numbers of updates after which losses were measured; the last is `T`.
      train_losses: `float32[S, C]`, mean loss over one fixed draw of training batches, the same for
        every optimizer and seed.
      evaluation_losses: `float32[S, C]`, the task's evaluation loss.
      initial_losses: `float32[S]`, as `train_losses`, before the first update.
      seconds: Wall-clock of all runs' training steps together, without compilation.
    """

    curves: np.ndarray
    checkpoints: tuple[int, ...]
    train_losses: np.ndarray
    evaluation_losses: np.ndarray
    initial_losses: np.ndarray
    seconds: float

    @property
    def num_updates(self) -> int:
        """Updates of each run."""
        return self.checkpoints[-1]

    @property
    def final_train_losses(self) -> np.ndarray:
        """`float32[S]`: training loss at the final parameters."""
        return self.train_losses[..., -1]

    @property
    def final_evaluation_losses(self) -> np.ndarray:
        """`float32[S]`: evaluation loss at the final parameters."""
        return self.evaluation_losses[..., -1]


class Row(NamedTuple):
    """One optimizer on one task at one number of steps.

    Attributes:
      optimizer: Its name.
      task: Its name.
      num_steps: Updates made.
      train_losses: `float32[S]`, one for each seed, at the final parameters.
      evaluation_losses: `float32[S]`.
      initial_losses: `float32[S]`, the training loss before the first update.
      seconds: Wall-clock of one training step of one run.
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
        """Mean over the seeds."""
        return float(np.mean(self.train_losses))

    @property
    def evaluation_loss(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.evaluation_losses))

    @property
    def diverged(self) -> int:
        """Number of seeds that end with a loss that is not finite or above the initial one."""
        return int(np.sum(~(self.train_losses <= self.initial_losses)))


def train(
    task: Task | Family,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    seeds: Sequence[int],
    *,
    checkpoints: Sequence[int] = (),
    num_batches: int = 32,
    evaluation_params: EvaluationParams | None = None,
    together: bool = True,
    on_progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Trains with one optimizer from several seeds at once.

    Args:
      task: What to minimise; a family stands for the task that key 0 draws from it. Data of a
        family is passed to the compiled training, that of a task becomes part of it.
      optimizer: Any optax optimizer; each batch's loss is passed to it as `value`.
      num_steps: Updates of each run.
      seeds: Each decides initial parameters and training batches, the same for every optimizer.
      checkpoints: Numbers of updates, below `num_steps`, after which to measure as well.
      num_batches: Training batches in the draw that training losses are measured on.
      evaluation_params: For optimizers, such as schedule-free ones, that train at other parameters
        than those that should be judged.
      together: Whether all runs make each step at once (`vmap`), which is the quickest for most.
        What an optimizer does only now and then (`cond`), such as an agent's learning, is then done
        at every step: for those the runs had better come one after the other.
      on_progress: Called with the number of steps done, every hundred steps and at the end.

    Returns:
      The `Outcome`, in NumPy arrays.

    Raises:
      ValueError: There are no seeds, or a checkpoint lies outside the training.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> def loss(params, batch=None): return jnp.sum(params**2)
      >>> def init(key): return jax.random.normal(key, (3,))
      >>> bowl = Task("bowl", init, lambda key: None, loss, loss)
      >>> outcome = train(bowl, optax.sgd(0.1), 50, seeds=(0, 1))
      >>> outcome.curves.shape, bool((outcome.final_train_losses < 1e-6).all())
      ((2, 50), True)
    """
    outcome = train_rates(
        task,
        lambda rate: optimizer,
        (1.0,),
        num_steps,
        seeds,
        checkpoints=checkpoints,
        num_batches=num_batches,
        evaluation_params=evaluation_params,
        together=together,
        on_progress=on_progress,
    )
    return outcome._replace(
        curves=outcome.curves[:, 0],
        train_losses=outcome.train_losses[:, 0],
        evaluation_losses=outcome.evaluation_losses[:, 0],
    )


def train_rates(
    task: Task | Family,
    make: RateFactory,
    rates: Sequence[float],
    num_steps: int,
    seeds: Sequence[int],
    *,
    checkpoints: Sequence[int] = (),
    num_batches: int = 32,
    evaluation_params: EvaluationParams | None = None,
    together: bool = True,
    on_progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Trains at several learning rates and from several seeds at once, in one compilation.

    Args:
      task: As for `train`.
      make: From a traced learning rate to the optimizer, such as `optax.adam`.
      rates: The learning rates. At one seed all of them see the same batches.
      num_steps: As for `train`.
      seeds: As for `train`.
      checkpoints: As for `train`.
      num_batches: As for `train`.
      evaluation_params: As for `train`.
      together: As for `train`.
      on_progress: As for `train`.

    Returns:
      The `Outcome`, with an axis for the rates after that of the seeds: `curves` is
      `float32[S, R, T]`, the losses `float32[S, R, C]`.

    Raises:
      ValueError: There are no seeds or rates, or a checkpoint lies outside the training.
    """
    if not seeds or not rates:
        raise ValueError(f"Nothing to run: seeds {tuple(seeds)}, rates {tuple(rates)}.")
    stops = tuple(sorted({*checkpoints, num_steps}))
    if stops[0] < 1 or stops[-1] > num_steps:
        raise ValueError(f"Checkpoints {tuple(checkpoints)} must lie in 1..{num_steps}.")
    family = _as_family(task)
    instance = family.sample(jax.random.key(0))
    rate_array = jnp.asarray(rates, jnp.float32)

    initial, streams = _start(family, instance, _keys(seeds))
    measure = functools.partial(_measure_all, family, num_batches, instance)
    initial_losses, _ = measure(jax.tree.map(lambda leaf: leaf[:, None], initial))
    init, advance = _program(family, make, together)
    params, state = jax.jit(init)(rate_array, initial)
    compiled = (
        jax.jit(advance).lower(instance, rate_array, streams, params, state, 0, num_steps).compile()
    )
    curves, measured = [], []
    step, seconds = 0, 0.0
    while step < num_steps:
        stop = min(step + _CHUNK, *(each for each in stops if each > step))
        began = time.perf_counter()
        params, state, losses = compiled(instance, rate_array, streams, params, state, step, stop)
        curves.append(np.asarray(losses)[..., : stop - step])
        seconds += time.perf_counter() - began
        step = stop
        if step in stops:
            judged = params
            if evaluation_params is not None:
                judged = jax.jit(jax.vmap(jax.vmap(evaluation_params)))(state, params)
            measured.append(measure(judged))
        if on_progress is not None:
            on_progress(step)
    train_losses, evaluation_losses = (
        np.stack(each, axis=-1) for each in zip(*measured, strict=True)
    )
    return Outcome(
        curves=np.concatenate(curves, axis=-1),
        checkpoints=stops,
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
    """Compares optimizers over tasks.

    Args:
      optimizers: From a name to a function from the number of steps to the optimizer.
      tasks: What to train.
      horizons: Numbers of steps to train for, each a training of its own.
      seeds: Runs of each; the same seeds start alike and see the same batches.
      on_row: Called with every row as soon as there is one.

    Returns:
      One row for each task, horizon and optimizer, in that order of nesting.

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
            for name, make in optimizers.items():
                outcome = train(task, make(horizon), horizon, seeds)
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
    """Exponential moving averages of training curves, which begin at their first value.

    Args:
      curves: `float[..., T]`. From the first non-finite value on, so is the average.
      decay: Share of the old average that stays at each step.

    Returns:
      `float64[..., T]`.

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
    """Initial parameters, with an axis `[S]` before their own, and keys of batches, `key[S]`."""
    task = family.task(instance)

    def of_seed(key: chex.PRNGKey) -> tuple[Any, chex.PRNGKey]:
        init_key, stream = jax.random.split(key)
        return task.init(init_key), stream

    return jax.vmap(of_seed)(keys)


def _program(
    family: Family, make: RateFactory, together: bool
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The optimizer's start and a stretch of training of all runs, as functions to compile.

    Parameters and states have the axes `[S, R]` for seeds and rates before their own; the start
    takes parameters without that of the rates.
    """

    def optimizer(rate: chex.Numeric) -> optax.GradientTransformationExtraArgs:
        return optax.with_extra_args_support(make(rate))

    def init(rates: chex.Array, params: Any) -> tuple[Any, Any]:
        def of_run(rate: chex.Array, params: Any) -> tuple[Any, Any]:
            return params, optimizer(rate).init(params)

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
            def step(index: chex.Array, carry: tuple[Any, Any, chex.Array]) -> Any:
                params, state, losses = carry
                batch = task.batch(jax.random.fold_in(stream, index))
                loss, grads = jax.value_and_grad(task.loss)(params, batch)
                updates, state = optimizer(rate).update(grads, state, params, value=loss)
                params = optax.apply_updates(params, updates)
                return params, state, losses.at[index - start].set(loss)

            return jax.lax.fori_loop(start, stop, step, (params, state, jnp.zeros(_CHUNK)))

        if together:  # Batches depend on the seed alone, and are drawn once for all of its rates.
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
    """Training and evaluation losses, `float32[S, R]` each, of parameters with axes `[S, R]`.

    One run after the other, so that this compiles once for any number of seeds and rates, and large
    evaluation data fits.
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
    """Training and evaluation loss of one run's parameters, `float32[2]`."""
    task = family.task(instance)
    keys = jax.random.split(jax.random.key(_MEASUREMENT_KEY), num_batches)
    losses = jax.lax.map(lambda key: task.loss(params, task.batch(key)), keys)
    return jnp.stack([jnp.mean(losses), task.evaluation_loss(params)])
