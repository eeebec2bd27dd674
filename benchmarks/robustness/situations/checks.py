"""Trainings under JAX's own checks."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

import alphaopt_jax as alphaopt
from benchmarks.robustness.situations import trainings
from benchmarks.robustness.situations.trainings import Figure

FLAGS: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "jax_debug_nans": lambda: jax.debug_nans(True),
    "jax_debug_infs": lambda: jax.debug_infs(True),
    "jax_numpy_rank_promotion": lambda: jax.numpy_rank_promotion("raise"),
    "jax_numpy_dtype_promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "jax_check_tracer_leaks": jax.checking_leaks,
    "jax_debug_key_reuse": lambda: jax.debug_key_reuse(True),
    "jax_enable_x64": lambda: jax.enable_x64(True),
}
"""JAX's checks, switched on, by the name of the option."""


def params() -> dict[str, chex.Array]:
    """Leaves of zero to four axes, an empty one, and one of zeros."""
    return {
        "scalar": jnp.ones((), jnp.float32),
        "zeros": jnp.zeros((3,), jnp.float32),
        "matrix": jnp.linspace(-1.0, 1.0, 12, dtype=jnp.float32).reshape(4, 3),
        "stack": jnp.ones((2, 1, 3), jnp.float32),
        "filters": jnp.full((2, 1, 2, 3), 0.1, jnp.float32),
        "empty": jnp.zeros((0, 3), jnp.float32),
    }


def cost(params: dict[str, chex.Array]) -> chex.Array:
    """A loss of `params`, without promotion of ranks or types."""
    outputs = jnp.sum(jnp.tanh(params["matrix"]), axis=0) + params["zeros"]
    outputs += jnp.sum(params["stack"], axis=(0, 1)) + jnp.sum(params["filters"], axis=(0, 1, 2))
    loss = jnp.mean(jnp.square(outputs - jnp.float32(0.3))) * jnp.square(params["scalar"])
    return loss + jnp.sum(params["empty"])


def train(
    tx: optax.GradientTransformation, start: Any, of: trainings.Cost, *, jit: bool, steps: int
) -> tuple[Any, optax.OptState, float]:
    """Calls every function of an optimizer and its state.

    Args:
      tx: The optimizer.
      start: Parameters.
      of: Their loss.
      jit: Whether `init`, the steps and the functions of the state are compiled.
      steps: Number of steps, in two halves of which the second is a new episode.

    Returns:
      Parameters and state after the last step, and the loss before it.
    """

    def step(params: Any, state: optax.OptState) -> tuple[Any, optax.OptState, chex.Array]:
        value, grads = jax.value_and_grad(of)(params)
        # Complex parameters descend along the conjugate.
        grads = jax.tree.map(jnp.conj, grads)
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state, value

    maybe_jit = jax.jit if jit else lambda function: function
    step = maybe_jit(step)
    params, state = start, maybe_jit(tx.init)(start)
    value = jnp.zeros(())
    for index in range(steps):
        if index == steps // 2:
            state = maybe_jit(alphaopt.new_episode)(state)
        params, state, value = step(params, state)
    maybe_jit(alphaopt.metrics)(state)
    maybe_jit(alphaopt.learning_rates)(state, params)
    alphaopt.agent_from_state(state)
    return params, state, float(value)


def under(flag: str) -> Figure:
    """The number of modes in which a training raises an error under one of `FLAGS`."""
    raised = []
    for mode in trainings.MODES:
        try:
            with FLAGS[flag]():
                train(trainings.make(mode), params(), cost, jit=True, steps=18)
        except Exception as error:  # The row says which.
            raised.append(type(error).__name__)
    text = f"raises {', '.join(sorted(set(raised)))}" if raised else "trains in all modes"
    return Figure(len(raised), text)
