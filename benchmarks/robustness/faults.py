"""The faults of `benchmarks.robustness`: changes of the loss, the gradients or the batch."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax.tasks.families.supervised import Batch

STEPS, FIRST, LASTING = 400, 100, 50
"""Steps of a training run, the first step with the fault, and the steps of a lasting fault."""
CLASSES = 4


class LossAndGrads(NamedTuple):
    """Inputs of the optimizer in one step.

    Attributes:
      loss: `float32[]`.
      grads: Dict of `float32` arrays.
    """

    loss: chex.Array
    grads: dict[str, chex.Array]


Change = Callable[[LossAndGrads, chex.PRNGKey], LossAndGrads]


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault that affects several consecutive steps, from `FIRST` on.

    Attributes:
      name: Name in the table.
      change: Maps loss and gradients, and a key (consumed), to those passed to the optimizer.
      steps: Number of affected steps.
      skipped: Whether AlphaOpt must skip these steps and count them.
      change_batch: Maps each affected batch to the one trained on.
    """

    name: str
    change: Change = lambda inputs, key: inputs
    steps: int = LASTING
    skipped: bool = False
    change_batch: Callable[[Batch], Batch] = lambda batch: batch


def _loss(function: Callable[[chex.Array], chex.Array]) -> Change:
    return lambda inputs, key: inputs._replace(loss=function(inputs.loss))


def _grads(function: Callable[[chex.Array, chex.PRNGKey], chex.Array]) -> Change:
    def change(inputs: LossAndGrads, key: chex.PRNGKey) -> LossAndGrads:
        keys = optax.tree.split_key_like(key, inputs.grads)
        return inputs._replace(grads=jax.tree.map(function, inputs.grads, keys))

    return change


def _scaled(factor: float) -> Change:
    return _grads(lambda grad, key: factor * grad)


def _one_element(value: float) -> Change:
    def change(inputs: LossAndGrads, key: chex.PRNGKey) -> LossAndGrads:
        name, *_ = sorted(inputs.grads)
        grad = inputs.grads[name]
        changed = grad.at[(0,) * grad.ndim].set(value)
        return inputs._replace(grads=inputs.grads | {name: changed})

    return change


def _sparse(grad: chex.Array, key: chex.PRNGKey) -> chex.Array:
    return jnp.where(jax.random.bernoulli(key, 0.02, grad.shape), grad, 0.0)


def _noise(grad: chex.Array, key: chex.PRNGKey) -> chex.Array:
    return jax.random.normal(key, grad.shape) * jnp.sqrt(jnp.mean(jnp.square(grad)))


_NON_FINITE = {"NaN": np.nan, "infinity": np.inf, "minus infinity": -np.inf}
FAULTS: tuple[Fault, ...] = (
    *(
        Fault(f"{word} in one gradient, {often}", _one_element(value), steps, skipped=True)
        for word, value in _NON_FINITE.items()
        for often, steps in (("once", 1), ("50 steps", LASTING))
    ),
    Fault("NaN in all gradients, 50 steps", _scaled(np.nan), skipped=True),
    Fault("gradients times 1e30, once", _scaled(1e30), 1, skipped=True),
    Fault("gradients times 1e30, 50 steps", _scaled(1e30), skipped=True),
    Fault("gradients times 1e15, once", _scaled(1e15), 1),
    Fault("gradients times 1,000, once", _scaled(1e3), 1),
    Fault("gradients times 1,000, 50 steps", _scaled(1e3)),
    Fault("gradients times 1e-30, 50 steps", _scaled(1e-30)),
    Fault("zero gradients, 50 steps", _scaled(0.0)),
    Fault("gradients 98 % zero, 50 steps", _grads(_sparse)),
    Fault("gradients replaced by noise, 50 steps", _grads(_noise)),
    Fault("gradients with opposite sign, 50 steps", _scaled(-1.0)),
    *(
        Fault(
            f"{word} as loss, 50 steps",
            _loss(lambda loss, v=value: 0.0 * loss + v),
            skipped=True,
        )
        for word, value in _NON_FINITE.items()
    ),
    Fault("negative loss, 50 steps", _loss(lambda loss: -loss)),
    Fault("zero loss, 50 steps", _loss(lambda loss: 0.0 * loss)),
    Fault("constant loss, to the end", _loss(lambda loss: 0.0 * loss + 1.0), STEPS),
    Fault("loss times 1e30, 50 steps", _loss(lambda loss: 1e30 * loss)),
    Fault("loss times 1e-30, 50 steps", _loss(lambda loss: 1e-30 * loss)),
    Fault("loss times 1e30, to the end", _loss(lambda loss: 1e30 * loss), STEPS),
    Fault("loss times 1,000, once", _loss(lambda loss: 1e3 * loss), 1),
    Fault(
        "wrong labels, 50 steps",
        change_batch=lambda batch: batch._replace(targets=(batch.targets + 1) % CLASSES),
    ),
    Fault(
        "inputs times 1e4, once",
        steps=1,
        change_batch=lambda batch: batch._replace(inputs=1e4 * batch.inputs),
    ),
)
"""All faults, in the order of the table."""
