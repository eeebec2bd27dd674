"""Small trainings in all modes of AlphaOpt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import alphaopt_jax as alphaopt

MODES: dict[str, dict[str, Any]] = {
    "no horizon": {},
    "learn=True": {"learn": True},
    "from scratch": {"agent": None},
}
"""Arguments of `alphaopt` by the name of the mode."""

Cost = Callable[[Any], chex.Array]


class Figure(NamedTuple):
    """The outcome of a situation.

    Attributes:
      value: The number that the situation's bar is about.
      text: The outcome in a few words.
    """

    value: float
    text: str


class Run(NamedTuple):
    """One training.

    Attributes:
      params: Final parameters.
      state: Final state of the optimizer.
      losses: `[steps]`, the loss before each step.
    """

    params: Any
    state: optax.OptState
    losses: chex.Array


def make(mode: str, **arguments: Any) -> optax.GradientTransformationExtraArgs:
    """AlphaOpt in one of `MODES`."""
    return alphaopt.alphaopt(**MODES[mode], **arguments)


def scan(
    tx: optax.GradientTransformation, cost: Cost, params: Any, steps: int, *, passes: bool = True
) -> Run:
    """A training without `jit`, to be transformed.

    Args:
      tx: The optimizer.
      cost: Loss of the parameters.
      params: Parameters at the start.
      steps: Number of steps.
      passes: Whether the loss is passed as `value`.
    """
    tx = optax.with_extra_args_support(tx)

    def one(carry: Any, _: None) -> tuple[Any, chex.Array]:
        params, state = carry
        value, grads = jax.value_and_grad(cost)(params)
        given = {"value": value} if passes else {}
        updates, state = tx.update(grads, state, params, **given)
        return (optax.apply_updates(params, updates), state), value

    (params, state), losses = jax.lax.scan(one, (params, tx.init(params)), length=steps)
    return Run(params, state, losses)


def train(tx: optax.GradientTransformation, cost: Cost, params: Any, steps: int) -> Run:
    """A compiled training; see `scan`."""
    return jax.jit(lambda params: scan(tx, cost, params, steps))(params)


def distance(found: Any, expected: Any) -> float:
    """Largest difference of two trees of arrays, relative to the largest entry of each array."""

    def of_leaf(found: chex.Array, expected: chex.Array) -> float:
        found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
        largest = max(np.max(np.abs(expected), initial=0.0), 1e-12)
        apart = np.max(np.abs(found - expected), initial=0.0) / largest
        return float(apart) if np.isfinite(apart) else np.inf

    return max(jax.tree.leaves(jax.tree.map(of_leaf, found, expected)))


def worst(of_mode: Callable[[str], float], text: str) -> Figure:
    """The largest value over all modes, described by `text`, in which it is `{}`."""
    value = max(of_mode(mode) for mode in MODES)
    return Figure(value, text.format(f"{value:.1g}"))


def skipped(run: Run) -> int:
    """Number of skipped steps."""
    return int(jnp.asarray(alphaopt.metrics(run.state)["updates_skipped"]))
