"""Faults that a training may meet, and a training that meets one."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax.tasks.families import supervised
from alphaopt_jax.tasks.families.supervised import Batch

STEPS, FIRST, LASTING = 400, 100, 50
"""A training's steps, the one at which its fault begins, and for how many a lasting one lasts."""
_FEATURES, _HIDDEN, _CLASSES, _BATCH = 16, 32, 4, 32


class Seen(NamedTuple):
    """What a step hands to the optimizer.

    Attributes:
      value: The loss, `float32[]`.
      grads: The gradients, a dict of `float32` arrays.
    """

    value: chex.Array
    grads: dict[str, chex.Array]


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
      name: In words.
      spoil: From what a step would have handed to the optimizer, and a key, to what it does.
      steps: For how many steps, from `FIRST` on.
      skipped: Whether these steps cannot be made, so that they must be skipped and counted.
      batch: From a batch to what is trained on in its stead, in these steps.
    """

    name: str
    spoil: Callable[[Seen, chex.PRNGKey], Seen] = lambda seen, key: seen
    steps: int = LASTING
    skipped: bool = False
    batch: Callable[[Batch], Batch] = lambda batch: batch


class Course(NamedTuple):
    """What became of a training.

    Attributes:
      losses: On batches that were not trained on, before each step and at the end,
        `float32[STEPS + 1]`.
      finite: Whether all parameters were finite after each step, `bool[STEPS]`.
      state: The optimizer's at the end.
    """

    losses: np.ndarray
    finite: np.ndarray
    state: optax.OptState


def _value(change: Callable[[chex.Array], chex.Array]) -> Callable[[Seen, chex.PRNGKey], Seen]:
    return lambda seen, key: seen._replace(value=change(seen.value))


def _grads(
    change: Callable[[chex.Array, chex.PRNGKey], chex.Array],
) -> Callable[[Seen, chex.PRNGKey], Seen]:
    def spoil(seen: Seen, key: chex.PRNGKey) -> Seen:
        keys = optax.tree.split_key_like(key, seen.grads)
        return seen._replace(grads=jax.tree.map(change, seen.grads, keys))

    return spoil


def _times(factor: float) -> Callable[[Seen, chex.PRNGKey], Seen]:
    return _grads(lambda grad, key: factor * grad)


def _one_element(value: float) -> Callable[[Seen, chex.PRNGKey], Seen]:
    def spoil(seen: Seen, key: chex.PRNGKey) -> Seen:
        name, *_ = sorted(seen.grads)
        grad = seen.grads[name]
        spoiled = grad.at[(0,) * grad.ndim].set(value)
        return seen._replace(grads=seen.grads | {name: spoiled})

    return spoil


def _sparse(grad: chex.Array, key: chex.PRNGKey) -> chex.Array:
    return jnp.where(jax.random.bernoulli(key, 0.02, grad.shape), grad, 0.0)


def _noise(grad: chex.Array, key: chex.PRNGKey) -> chex.Array:
    return jax.random.normal(key, grad.shape) * jnp.sqrt(jnp.mean(jnp.square(grad)))


_NOT_FINITE = {"NaN": np.nan, "infinite": np.inf, "minus infinite": -np.inf}
FAULTS: tuple[Fault, ...] = (
    *(
        Fault(f"a gradient that is {word}, {often}", _one_element(value), steps, skipped=True)
        for word, value in _NOT_FINITE.items()
        for often, steps in (("once", 1), ("50 steps", LASTING))
    ),
    Fault("all gradients NaN, 50 steps", _times(np.nan), skipped=True),
    Fault("gradients times 1e30, once", _times(1e30), 1, skipped=True),
    Fault("gradients times 1e30, 50 steps", _times(1e30), skipped=True),
    Fault("gradients times 1e15, once", _times(1e15), 1),
    Fault("gradients times 1,000, once", _times(1e3), 1),
    Fault("gradients times 1,000, 50 steps", _times(1e3)),
    Fault("gradients times 1e-30, 50 steps", _times(1e-30)),
    Fault("gradients of zero, 50 steps", _times(0.0)),
    Fault("one gradient in 50 is not zero, 50 steps", _grads(_sparse)),
    Fault("gradients of pure noise, 50 steps", _grads(_noise)),
    Fault("gradients uphill, 50 steps", _times(-1.0)),
    *(
        Fault(
            f"a loss that is {word}, 50 steps",
            _value(lambda loss, v=value: 0.0 * loss + v),
            skipped=True,
        )
        for word, value in _NOT_FINITE.items()
    ),
    Fault("a negative loss, 50 steps", _value(lambda loss: -loss)),
    Fault("a loss of zero, 50 steps", _value(lambda loss: 0.0 * loss)),
    Fault("a constant loss, to the end", _value(lambda loss: 0.0 * loss + 1.0), STEPS),
    Fault("a loss times 1e30, 50 steps", _value(lambda loss: 1e30 * loss)),
    Fault("a loss times 1e-30, 50 steps", _value(lambda loss: 1e-30 * loss)),
    Fault("a loss times 1e30, to the end", _value(lambda loss: 1e30 * loss), STEPS),
    Fault("a loss times 1,000, once", _value(lambda loss: 1e3 * loss), 1),
    Fault(
        "labels of other classes, 50 steps",
        batch=lambda batch: batch._replace(targets=(batch.targets + 1) % _CLASSES),
    ),
    Fault(
        "inputs times 1e4, once",
        steps=1,
        batch=lambda batch: batch._replace(inputs=1e4 * batch.inputs),
    ),
)
"""All faults, in the order of the table."""


def train(tx: optax.GradientTransformation, fault: Fault | None = None, *, seed: int = 0) -> Course:
    """Trains a small classifier, with a fault on the way or without.

    Args:
      tx: The optimizer. All trainings with one are made by one compiled program.
      fault: One of `FAULTS`, or None.
      seed: Of the task, the start, the batches and the fault.

    Returns:
      What became of it.

    Example:
      >>> import optax
      >>> course = train(optax.adam(1e-2), FAULTS[0])
      >>> course.losses.shape, bool(course.finite[FIRST - 1]), bool(course.finite[FIRST])
      ((401,), True, False)
    """
    number = _ALL.index(_NONE if fault is None else fault)
    return Course(*jax.device_get(_train(tx, jnp.asarray(number), jax.random.key(seed))))


_NONE = Fault("none", steps=0)
_ALL = (_NONE, *FAULTS)


@functools.partial(jax.jit, static_argnums=0)
def _train(
    optimizer: optax.GradientTransformation, fault: chex.Array, key: chex.PRNGKey
) -> tuple[chex.Array, chex.Array, optax.OptState]:
    tx = optax.with_extra_args_support(optimizer)
    teacher_key, init_key, stream, fault_key, held_out_key = jax.random.split(key, 5)
    teacher = _init(teacher_key, 3.0)
    last = FIRST + jnp.array([each.steps for each in _ALL])[fault]

    def draw(key: chex.PRNGKey, size: int) -> Batch:
        inputs = jax.random.normal(key, (size, _FEATURES))
        return Batch(inputs, jnp.argmax(_logits(teacher, inputs), axis=-1))

    held_out = draw(held_out_key, 512)

    def step(
        carry: tuple[dict[str, chex.Array], optax.OptState], number: chex.Array
    ) -> tuple[tuple[dict[str, chex.Array], optax.OptState], tuple[chex.Array, chex.Array]]:
        params, state = carry
        now = jnp.where((number >= FIRST) & (number < last), fault, 0)
        batch = draw(jax.random.fold_in(stream, number), _BATCH)
        batch = jax.lax.switch(now, [each.batch for each in _ALL], batch)
        seen = Seen(*jax.value_and_grad(_loss)(params, batch))
        spoil_key = jax.random.fold_in(fault_key, number)
        seen = jax.lax.switch(now, [each.spoil for each in _ALL], seen, spoil_key)
        updates, state = tx.update(seen.grads, state, params, value=seen.value)
        moved = optax.apply_updates(params, updates)
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in moved.values()]))
        return (moved, state), (_loss(params, held_out), finite)

    params = _init(init_key, 1.0)
    (params, state), (losses, finite) = jax.lax.scan(
        step, (params, tx.init(params)), jnp.arange(STEPS)
    )
    return jnp.append(losses, _loss(params, held_out)), finite, state


def _init(key: chex.PRNGKey, gain: float) -> dict[str, chex.Array]:
    first_key, second_key = jax.random.split(key)
    return {
        "first": gain * jax.random.normal(first_key, (_FEATURES, _HIDDEN)) / np.sqrt(_FEATURES),
        "first_bias": jnp.zeros(_HIDDEN),
        "second": gain * jax.random.normal(second_key, (_HIDDEN, _CLASSES)) / np.sqrt(_HIDDEN),
        "second_bias": jnp.zeros(_CLASSES),
    }


def _logits(params: dict[str, chex.Array], inputs: chex.Array) -> chex.Array:
    hidden = jnp.tanh(inputs @ params["first"] + params["first_bias"])
    return hidden @ params["second"] + params["second_bias"]


def _loss(params: dict[str, chex.Array], batch: Batch) -> chex.Array:
    return supervised.cross_entropy(_logits(params, batch.inputs), batch.targets)
