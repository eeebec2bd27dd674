"""Interleaved timing of compiled steps, so that disturbances affect all optimizers alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import time
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

CYCLE = 16
"""Steps that are timed together: a whole cycle of rate refreshes and of learning."""
_SECONDS_OF_ROUNDS = 30.0


class Runner:
    """A compiled step that is called on its own results, in the same memory.

    Attributes:
      compile_seconds: Seconds of tracing and compiling.
      state_bytes: Size of the optimizer's state.
      temporary_bytes: Peak of the additional memory during a step.
      accessed_bytes: Bytes that a step reads and writes, by XLA's cost analysis, which counts the
        most expensive branch of every conditional as if it ran at every step.
    """

    def __init__(
        self,
        optimizer: optax.GradientTransformation,
        params: chex.ArrayTree,
        loss_and_grads: Callable[..., tuple[chex.Array, chex.ArrayTree]],
        *constants: chex.ArrayTree,
    ):
        """Compiles a step with the gradients of `loss_and_grads(params, *constants)`."""
        extended = optax.with_extra_args_support(optimizer)

        def step(params: Any, state: Any, *constants: Any) -> tuple[Any, Any]:
            value, grads = loss_and_grads(params, *constants)
            updates, state = extended.update(grads, state, params, value=value)
            return optax.apply_updates(params, updates), state

        self._carry = (
            jax.tree.map(jnp.array, params),  # A copy, since steps donate it.
            jax.jit(extended.init)(params),
        )
        self._constants = constants
        self.state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self._carry[1]))
        began = time.perf_counter()
        lowered = jax.jit(step, donate_argnums=(0, 1)).lower(*self._carry, *constants)
        self._step = lowered.compile()
        self.compile_seconds = time.perf_counter() - began
        self.temporary_bytes = self._step.memory_analysis().temp_size_in_bytes
        self.accessed_bytes = self._step.cost_analysis().get("bytes accessed", float("nan"))

    def seconds(self, steps: int) -> float:
        """Mean seconds per step, over `steps` steps."""
        began = time.perf_counter()
        for _ in range(steps):
            self._carry = self._step(*self._carry, *self._constants)
        jax.block_until_ready(self._carry)
        return (time.perf_counter() - began) / steps


def interleaved(
    runners: Mapping[str, Runner], rounds: int, advance: Callable[[], None]
) -> dict[str, np.ndarray]:
    """Seconds per step of every runner in every round.

    The first cycle of each runner is not timed. Short rounds are repeated more often, so that a few
    seconds of disturbance do not determine the result.

    Args:
      runners: The runners by name.
      rounds: Least number of rounds; there are at most five times as many.
      advance: Called `1 + rounds` times for each runner, for a progress bar.

    Returns:
      `float[rounds or more]` for each runner.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    cycles, one_round = {}, 0.0
    for name, runner in runners.items():
        runner.seconds(CYCLE)
        # Steps of microseconds are repeated, up to the resolution of the clock.
        cycle = CYCLE * runner.seconds(CYCLE)
        cycles[name] = int(np.clip(0.05 / cycle, 1, 50))
        one_round += cycles[name] * cycle
        advance()
    for number in range(int(np.clip(_SECONDS_OF_ROUNDS / one_round, rounds, 5 * rounds))):
        for name, runner in runners.items():
            seconds[name].append(runner.seconds(CYCLE * cycles[name]))
            if number < rounds:
                advance()
    return {name: np.array(values) for name, values in seconds.items()}


def triad_bandwidth(size: int = 20_000_000, repeats: int = 9) -> float:
    """Memory bandwidth in bytes per second, by the STREAM triad `a = b + 3 c`; a median."""
    first, second = jnp.ones(size), jnp.full(size, 2.0)
    # The result reuses the memory of the first argument; new memory would have to be mapped.
    triad = jax.jit(lambda a, b, c: (b + 3.0 * c, a)[0], donate_argnums=0, keep_unused=True)
    result = triad(jnp.zeros(size), first, second)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = triad(result, first, second).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 3 * 4 * size / float(np.median(seconds))
