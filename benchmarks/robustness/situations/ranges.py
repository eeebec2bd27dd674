"""Losses, gradients and parameters of unusual sizes."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import alphaopt_jax as alphaopt
from benchmarks.robustness.situations import trainings
from benchmarks.robustness.situations.trainings import Figure

_LINE = np.array([2.0, 1.0])


def line_fit(loss: float, steps: int = 300, *, mode: str = "no horizon") -> tuple[float, int]:
    """A line is fitted in double precision, with a loss of any size.

    Args:
      loss: About the first loss.
      steps: Length of the training.
      mode: The mode.

    Returns:
      The last loss over the first, and the number of skipped steps.
    """
    with jax.enable_x64(True):
        times = jnp.linspace(0.0, 1.0, 50, dtype=jnp.float64)
        root = np.sqrt(loss / 61.0)

        def cost(line: chex.Array) -> chex.Array:
            return jnp.sum(jnp.square((line[0] * times + line[1] - 2.0 * times - 1.0) * root))

        start = jnp.full((2,), 0.5, jnp.float64)
        run = trainings.train(trainings.make(mode), cost, start, steps)
        return float(cost(run.params) / run.losses[0]), trainings.skipped(run)


def large_float32(steps: int = 300, *, mode: str = "no horizon") -> tuple[float, int]:
    """Parameters of 1e8 in single precision: losses of 1e20, whose squares overflow.

    Args:
      steps: Length of the training.
      mode: The mode.

    Returns:
      As `line_fit`.
    """

    def cost(params: chex.Array) -> chex.Array:
        return 1e4 * jnp.sum(jnp.square(params - jnp.array([2e8, -1e8])))

    run = trainings.train(trainings.make(mode), cost, jnp.array([1e8, 1e8]), steps)
    return float(cost(run.params) / run.losses[0]), trainings.skipped(run)


def spike(
    dtype: str = "float64", at: int = 50, steps: int = 300, *, mode: str = "no horizon"
) -> tuple[float, int]:
    """One step has a loss and gradients 1e30 times too large.

    Args:
      dtype: Type of the parameters.
      at: The step.
      steps: Length of the training.
      mode: The mode.

    Returns:
      As `line_fit`.
    """
    with jax.enable_x64(dtype == "float64"):
        tx = trainings.make(mode)

        def cost(params: chex.Array) -> chex.Array:
            return jnp.sum(jnp.square(params - jnp.asarray(_LINE, dtype)))

        def one(carry: Any, step: chex.Array) -> tuple[Any, chex.Array]:
            params, state = carry
            value, grads = jax.value_and_grad(cost)(params)
            factor = jnp.where(step == at, 1e30, 1.0).astype(dtype)
            updates, state = tx.update(factor * grads, state, params, value=factor * value)
            return (optax.apply_updates(params, updates), state), value

        start = jnp.full((2,), 0.5, dtype)
        carry = (start, tx.init(start))
        (params, state), losses = jax.jit(
            lambda carry: jax.lax.scan(one, carry, jnp.arange(steps))
        )(carry)
        run = trainings.Run(params, state, losses)
        return float(cost(params) / losses[0]), trainings.skipped(run)


_FORBIDDEN = np.eye(4, k=2) > 0


def forbidden_transitions(
    tx: optax.GradientTransformation, entry: float = -np.inf, dtype: str = "float32"
) -> tuple[float, int, chex.Array]:
    """Logits of transitions are trained, some of which are forbidden.

    Args:
      tx: The optimizer.
      entry: Entry of the forbidden ones, whose gradient is zero.
      dtype: Type of the logits.

    Returns:
      The last excess of the loss over its minimum, relative to the first; the number of skipped
      steps, 0 for other optimizers than AlphaOpt; and the logits.
    """
    aim = jax.nn.softmax(jnp.where(_FORBIDDEN, -jnp.inf, jnp.arange(4.0)))

    def cost(logits: chex.Array) -> chex.Array:
        allowed = jnp.where(_FORBIDDEN, -jnp.inf, logits.astype(jnp.float32))
        logs = jnp.where(_FORBIDDEN, 0.0, jax.nn.log_softmax(allowed))
        return -jnp.mean(jnp.sum(aim * logs, -1))

    start = jnp.where(_FORBIDDEN, jnp.asarray(entry, dtype), jnp.zeros((), dtype))
    run = trainings.train(tx, cost, start, 100)
    least = float(cost(jnp.log(jnp.where(_FORBIDDEN, 1.0, aim)).astype(dtype)))
    excess = (float(cost(run.params)) - least) / (float(run.losses[0]) - least)
    counted = isinstance(run.state, alphaopt.AlphaOptState)
    return excess, trainings.skipped(run) if counted else 0, run.params


def slope_and_offset(*, apart: bool, steps: int = 2000) -> float:
    """A line with a slope of 2 and an offset of 500, over inputs up to 1,000.

    Args:
      apart: Whether slope and offset are two leaves.
      steps: Length of the training.

    Returns:
      The last loss over the first.
    """
    inputs = jnp.linspace(0.0, 1e3, 200)

    def cost(params: Any) -> chex.Array:
        slope, offset = params
        return jnp.mean(jnp.square(slope * inputs + offset - 2.0 * inputs - 500.0))

    start = (jnp.ones(()), jnp.ones(())) if apart else jnp.ones(2)
    run = trainings.train(trainings.make("no horizon"), cost, start, steps)
    return float(jnp.mean(run.losses[-100:]) / run.losses[0])


def as_figure(found: tuple[Any, ...], skipped: int = 0) -> Figure:
    """The last loss over the first, or infinity if another number of steps was skipped."""
    ratio, count = found[:2]
    text = f"{ratio:.1e} of the first loss, {count} steps skipped"
    return Figure(ratio if count == skipped and np.isfinite(ratio) else np.inf, text)


def kept(entry: float, dtype: str = "float32", **arguments: Any) -> Figure:
    """`forbidden_transitions`, with infinity if a forbidden entry was changed.

    Args:
      entry: As in `forbidden_transitions`.
      dtype: Likewise.
      **arguments: Of `alphaopt`.
    """
    found = forbidden_transitions(alphaopt.alphaopt(**arguments), entry, dtype)
    same = np.array_equal(
        np.asarray(found[2], np.float32)[_FORBIDDEN],
        np.full(_FORBIDDEN.sum(), entry, np.float32),
        equal_nan=True,
    )
    figure = as_figure(found)
    return figure if same else Figure(np.inf, f"{figure.text}, a forbidden entry changed")
