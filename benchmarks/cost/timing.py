"""Timing compiled steps fairly: interleaved, so that the machine's moods hit all alike."""

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
"""Steps that are timed together: a whole cycle of decisions, and of learning."""
_SECONDS_OF_ROUNDS = 30.0


class Runner:
    """A compiled step that is given its own results again, in the same memory.

    Attributes:
      compile_seconds: What tracing and compiling took.
      state_bytes: What the optimizer's state takes.
      temporary_bytes: What a step needs besides, at its peak.
      accessed_bytes: What XLA's cost analysis says a step reads and writes; of what is conditional
        it counts the dearest branch, as if it were taken at every step.
    """

    def __init__(
        self,
        optimizer: optax.GradientTransformation,
        params: chex.ArrayTree,
        loss_and_grads: Callable[..., tuple[chex.Array, chex.ArrayTree]],
        *constants: chex.ArrayTree,
    ):
        """Compiles the step of `optimizer` from `loss_and_grads(params, *constants)`."""
        extended = optax.with_extra_args_support(optimizer)

        def step(params: Any, state: Any, *constants: Any) -> tuple[Any, Any]:
            value, grads = loss_and_grads(params, *constants)
            updates, state = extended.update(grads, state, params, value=value)
            return optax.apply_updates(params, updates), state

        self._carry = (
            jax.tree.map(jnp.array, params),  # Its own copy, since steps donate it.
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
        """Seconds a step, mean of so many."""
        began = time.perf_counter()
        for _ in range(steps):
            self._carry = self._step(*self._carry, *self._constants)
        jax.block_until_ready(self._carry)
        return (time.perf_counter() - began) / steps


def interleaved(
    runners: Mapping[str, Runner], rounds: int, advance: Callable[[], None]
) -> dict[str, np.ndarray]:
    """Seconds a step of every runner in every round.

    Before the first round each makes its first steps, at which an agent looks at every parameter.
    Quick rounds are more than `rounds`, so that a few seconds in which something else disturbs do
    not decide.

    Args:
      runners: What to time, by name.
      rounds: At least so many; at most five times as many.
      advance: Called after each of the first turns of a runner, `rounds` and one.

    Returns:
      `float[rounds or more]` for each runner.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    cycles, one_round = {}, 0.0
    for name, runner in runners.items():
        runner.seconds(CYCLE)
        # What takes microseconds is repeated until the clock can tell.
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
    """Bytes a second that this machine moves in `a = b + 3 c`, the STREAM triad; median."""
    first, second = jnp.ones(size), jnp.full(size, 2.0)
    # Its result goes where its first argument was: fresh memory would have to be mapped.
    triad = jax.jit(lambda a, b, c: (b + 3.0 * c, a)[0], donate_argnums=0, keep_unused=True)
    result = triad(jnp.zeros(size), first, second)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = triad(result, first, second).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 3 * 4 * size / float(np.median(seconds))
