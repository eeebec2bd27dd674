"""The variants of the pretrained agent that `benchmarks.ablations` compares."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math
from typing import Any, NamedTuple
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import optax

import alphaopt_jax as alphaopt
from alphaopt_jax import config
from alphaopt_jax._agent import rotation
from benchmarks.common import versions
from benchmarks.zero_tuning.optimizers import ALPHAOPT, NO_HORIZON, OptimizerSpec

CONSTANTS = (0.5, 1.0, 1.5, 2.0)
"""Log rates of the constant agents."""
MULTIPLIERS = (0.01, 0.1, 10.0, 100.0)
"""Values of `learning_rate` other than 1."""
LAST_PARAMS = f"{NO_HORIZON}, at the last parameters"
OWN_COORDINATES = "without rotation"
ONE_SIDE = "the shorter side of matrices rotated, not the longer"
ONLY_MATRICES = "vectors not rotated"


class Variant(NamedTuple):
    """A variant in tables.

    Attributes:
      name: Name in tables and stored runs.
      compared_with: `ALPHAOPT` or `NO_HORIZON`, the agent as it is.
      spec: The optimizer.
    """

    name: str
    compared_with: str
    spec: OptimizerSpec


def variants() -> list[Variant]:
    """The agent as it is, with and without `num_steps`, and without each of its parts."""
    agent = alphaopt.load_agent("base")
    own = dataclasses.replace(agent, block_size=0)
    found = [
        Variant(ALPHAOPT, ALPHAOPT, _spec(ALPHAOPT, agent)),
        Variant(NO_HORIZON, NO_HORIZON, _spec(NO_HORIZON, agent, horizon_known=False)),
        Variant(OWN_COORDINATES, ALPHAOPT, _spec(OWN_COORDINATES, own)),
        Variant(
            LAST_PARAMS, NO_HORIZON, _spec(LAST_PARAMS, agent, horizon_known=False, averaged=False)
        ),
    ]
    for name, cuts in ((ONE_SIDE, _shorter_side), (ONLY_MATRICES, _matrices)):
        spec = _spec(name, agent)
        cut = dataclasses.replace(spec, optimizer_fn=_with_cuts(spec.optimizer_fn, cuts))
        found.append(Variant(name, ALPHAOPT, cut))
    for value in CONSTANTS:
        name = constant_name(value)
        found.append(Variant(name, ALPHAOPT, _spec(name, constant_agent(agent, value))))
    return found


def multiplied() -> list[Variant]:
    """The agent with `learning_rate` far from 1."""
    agent = alphaopt.load_agent("base")
    names = {value: f"learning_rate={value:g}" for value in MULTIPLIERS}
    return [
        Variant(name, ALPHAOPT, _spec(name, agent, learning_rate=value))
        for value, name in names.items()
    ]


def constant_name(log_rate: float) -> str:
    """Name of the agent that decides the same log rate everywhere."""
    return f"without an agent: log rate {log_rate:g}"


def constant_agent(agent: alphaopt.Agent, log_rate: float) -> alphaopt.Agent:
    """An agent of the same coordinates and schedule that decides one log rate everywhere.

    Args:
      agent: An agent that decides one rate for each leaf.
      log_rate: The log rate, below the agent's bound.
    """
    params: dict[str, Any] = jax.tree.map(jnp.zeros_like, dict(agent.params))
    # The bound maps x to bound * tanh(2 x / bound).
    inverse = 0.5 * agent.max_log_rate * math.atanh(log_rate / agent.max_log_rate)
    output = params["actor"]["leaf"]["log_rate"]
    output["bias"] = jnp.full_like(output["bias"], inverse)
    return dataclasses.replace(agent, params=params)


_Cuts = list[tuple[int, int, int, int]]
_cuts = rotation._cuts


def _shorter_side(shape: tuple[int, ...], block_size: int) -> _Cuts:
    # Each side ends with the length of the other one.
    return sorted(_cuts(shape, block_size), key=lambda side: -side[-1])[:1]


def _matrices(shape: tuple[int, ...], block_size: int) -> _Cuts:
    return [side for side in _cuts(shape, block_size) if side[-1] > 1]


def _with_cuts(
    optimizer_fn: Callable[..., Any], cuts: Callable[[tuple[int, ...], int], _Cuts]
) -> Callable[..., optax.GradientTransformation]:
    """Optimizers that rotate other sides of leaves.

    The package has no such option; its blocks are replaced while an optimizer is traced.
    """

    def with_cuts_fn(rate: chex.Numeric, num_steps: int) -> optax.GradientTransformation:
        tx = optimizer_fn(rate, num_steps)

        def init(params: optax.Params) -> optax.OptState:
            with mock.patch.object(rotation, "_cuts", cuts):
                return tx.init(params)

        def update(
            updates: optax.Updates, state: optax.OptState, params: Any = None, **extra: Any
        ) -> tuple[optax.Updates, optax.OptState]:
            with mock.patch.object(rotation, "_cuts", cuts):
                return tx.update(updates, state, params, **extra)

        return optax.GradientTransformationExtraArgs(init, update)

    return with_cuts_fn


def _spec(
    name: str,
    agent: alphaopt.Agent,
    *,
    horizon_known: bool = True,
    averaged: bool = True,
    learning_rate: float = 1.0,
) -> OptimizerSpec:
    averaged = averaged and not horizon_known

    def optimizer_fn(rate: chex.Numeric, num_steps: int) -> optax.GradientTransformation:
        del rate
        horizon = num_steps if horizon_known else None
        # An array gives no warning that it is far from 1.
        multiplier: Callable[[chex.Numeric], chex.Array] = lambda _: jnp.asarray(learning_rate)  # noqa: E731
        return alphaopt.alphaopt(multiplier, agent=agent, num_steps=horizon)

    return OptimizerSpec(
        name,
        "alphaopt",
        optimizer_fn,
        needs_horizon=horizon_known,
        evaluation_params=alphaopt.eval_params if averaged else None,
        version=versions.optimizer_version(agent, config.pretrained_config(), averaged=averaged),
    )
