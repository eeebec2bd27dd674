"""Training runs of a small classifier, with or without a fault."""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax.tasks.families import supervised
from alphaopt_jax.tasks.families.supervised import Batch
from benchmarks.robustness.faults import CLASSES, FAULTS, FIRST, STEPS, Fault, LossAndGrads

_FEATURES, _HIDDEN, _BATCH = 16, 32, 32
_NO_FAULT = Fault("none", steps=0)
_ALL = (_NO_FAULT, *FAULTS)

Params = dict[str, chex.Array]


class Run(NamedTuple):
    """One training run.

    Attributes:
      losses: `float32[STEPS + 1]`, losses on held-out data before each step and after the last.
      finite: `bool[STEPS]`, whether all parameters are finite after each step.
      state: Final state of the optimizer.
    """

    losses: np.ndarray
    finite: np.ndarray
    state: optax.OptState


def train(tx: optax.GradientTransformation, fault: Fault | None = None, *, seed: int = 0) -> Run:
    """Trains a small classifier.

    Args:
      tx: The optimizer. All runs of one object share a compiled program.
      fault: One of `FAULTS`, or None.
      seed: Seed of the task, the initial parameters, the batches and the fault.

    Example:
      >>> import optax
      >>> run = train(optax.adam(1e-2), FAULTS[0])
      >>> run.losses.shape, bool(run.finite[FIRST - 1]), bool(run.finite[FIRST])
      ((401,), True, False)
    """
    index = _ALL.index(_NO_FAULT if fault is None else fault)
    return Run(*jax.device_get(_train(tx, jnp.asarray(index), jax.random.key(seed))))


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
        carry: tuple[Params, optax.OptState], number: chex.Array
    ) -> tuple[tuple[Params, optax.OptState], tuple[chex.Array, chex.Array]]:
        params, state = carry
        active = jnp.where((number >= FIRST) & (number < last), fault, 0)
        batch = draw(jax.random.fold_in(stream, number), _BATCH)
        batch = jax.lax.switch(active, [each.change_batch for each in _ALL], batch)
        inputs = LossAndGrads(*jax.value_and_grad(_loss)(params, batch))
        change_key = jax.random.fold_in(fault_key, number)
        inputs = jax.lax.switch(active, [each.change for each in _ALL], inputs, change_key)
        updates, state = tx.update(inputs.grads, state, params, value=inputs.loss)
        next_params = optax.apply_updates(params, updates)
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in next_params.values()]))
        return (next_params, state), (_loss(params, held_out), finite)

    params = _init(init_key, 1.0)
    (params, state), (losses, finite) = jax.lax.scan(
        step, (params, tx.init(params)), jnp.arange(STEPS)
    )
    return jnp.append(losses, _loss(params, held_out)), finite, state


def _init(key: chex.PRNGKey, gain: float) -> Params:
    first_key, second_key = jax.random.split(key)
    return {
        "first": gain * jax.random.normal(first_key, (_FEATURES, _HIDDEN)) / np.sqrt(_FEATURES),
        "first_bias": jnp.zeros(_HIDDEN),
        "second": gain * jax.random.normal(second_key, (_HIDDEN, CLASSES)) / np.sqrt(_HIDDEN),
        "second_bias": jnp.zeros(CLASSES),
    }


def _logits(params: Params, inputs: chex.Array) -> chex.Array:
    hidden = jnp.tanh(inputs @ params["first"] + params["first_bias"])
    return hidden @ params["second"] + params["second_bias"]


def _loss(params: Params, batch: Batch) -> chex.Array:
    return supervised.cross_entropy(_logits(params, batch.inputs), batch.targets)
