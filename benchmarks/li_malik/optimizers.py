"""The hand-designed optimizers that Li & Malik compare with, and their grids of constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
_DECAYS = (0.5, 0.8, 0.9, 0.95)
_MAX_RATES = (0.3, 1.0, 3.0, 10.0, 30.0)


@dataclasses.dataclass(frozen=True)
class Rival:
    """A hand-designed optimizer.

    Attributes:
      optimizer_fn: Maps constants to the optimizer.
      grid: Values of the constants to choose from.
    """

    optimizer_fn: Callable[..., optax.GradientTransformation]
    grid: Sequence[tuple[float, ...]]


class ConjugateState(NamedTuple):
    """State of nonlinear conjugate gradients.

    Attributes:
      gradient: Last gradient, a tree like the parameters.
      direction: Last direction, a tree like the parameters.
    """

    gradient: optax.Updates
    direction: optax.Updates


def conjugate_direction() -> optax.GradientTransformation:
    """Directions of nonlinear conjugate gradients, with a restart if the direction ascends.

    References:
      Polak & Ribière 1969, with β = max(β, 0); Nocedal & Wright, *Numerical Optimization*, 5.45.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = conjugate_direction()
      >>> state = tx.init(jnp.zeros(2))
      >>> first, state = tx.update(jnp.array([2.0, 0.0]), state)
      >>> second, state = tx.update(jnp.array([0.0, 1.0]), state)
      >>> first.tolist(), second.tolist()
      ([-2.0, -0.0], [-0.5, -1.0])
    """

    def init(params: optax.Params) -> ConjugateState:
        zeros = optax.tree.zeros_like(params)
        return ConjugateState(zeros, zeros)

    def update(
        updates: optax.Updates,
        state: ConjugateState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, ConjugateState]:
        del params
        previous = optax.tree.vdot(state.gradient, state.gradient)
        change = optax.tree.vdot(updates, optax.tree.sub(updates, state.gradient))
        beta = jnp.where(previous > 0.0, jnp.maximum(change / previous, 0.0), 0.0)
        direction = optax.tree.sub(optax.tree.scale(beta, state.direction), updates)
        ascends = optax.tree.vdot(direction, updates) >= 0.0
        direction = jax.tree.map(
            lambda conjugate, gradient: jnp.where(ascends, -gradient, conjugate),
            direction,
            updates,
        )
        return direction, ConjugateState(updates, direction)

    return optax.GradientTransformation(init, update)


def _conjugate_gradients(max_rate: float, slope: float) -> optax.GradientTransformation:
    return optax.chain(
        conjugate_direction(),
        optax.scale_by_backtracking_linesearch(
            max_backtracking_steps=20,
            slope_rtol=slope,
            decrease_factor=0.5,
            increase_factor=4.0,
            max_learning_rate=max_rate,
        ),
    )


def _lbfgs(memory: float, slope: float) -> optax.GradientTransformation:
    search = optax.scale_by_zoom_linesearch(max_linesearch_steps=20, slope_rtol=slope)
    return optax.lbfgs(memory_size=int(memory), linesearch=search)


_one_rate = tuple((rate,) for rate in RATES)
DETERMINISTIC: Mapping[str, Rival] = {
    "gradient descent": Rival(optax.sgd, _one_rate),
    "momentum": Rival(optax.sgd, tuple(itertools.product(RATES, _DECAYS))),
    "conjugate gradients": Rival(
        _conjugate_gradients, tuple(itertools.product(_MAX_RATES, (1e-4, 0.3)))
    ),
    "L-BFGS": Rival(_lbfgs, tuple(itertools.product((5, 20), (1e-4, 0.3)))),
}
"""Rivals in the paper of 2016. Line searches are tuned in their longest step and their slope
condition; they evaluate the objective several times in a step, which counts as one step."""
STOCHASTIC: Mapping[str, Rival] = {
    "SGD": Rival(optax.sgd, _one_rate),
    "momentum": Rival(optax.sgd, tuple(itertools.product(RATES, (0.5, 0.9)))),
    "RMSprop": Rival(functools.partial(optax.rmsprop, decay=0.99), _one_rate),
    "AdaGrad": Rival(optax.adagrad, _one_rate),
    "Adam": Rival(optax.adam, _one_rate),
}
"""Rivals in the paper of 2017, those for minibatches."""


def descend(
    objective: Callable[[chex.Array], chex.Array],
    start: chex.Array,
    optimizer: optax.GradientTransformation,
    num_steps: int,
) -> chex.Array:
    """Minimizes a deterministic objective.

    Args:
      objective: Maps a location `float32[d]` to `float32[]`.
      start: Initial location.
      optimizer: Any optax optimizer, also one with a line search.
      num_steps: T.

    Returns:
      `float32[T + 1]`, the objective before each step and after the last.
    """
    tx = optax.with_extra_args_support(optimizer)

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], chex.Array]:
        location, state = carry
        value, gradient = jax.value_and_grad(objective)(location)
        updates, state = tx.update(
            gradient, state, location, value=value, grad=gradient, value_fn=objective
        )
        return (optax.apply_updates(location, updates), state), value

    (location, _), values = jax.lax.scan(step, (start, tx.init(start)), None, length=num_steps)
    return jnp.append(values, objective(location))
