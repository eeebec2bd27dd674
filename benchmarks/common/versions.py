"""The version of AlphaOpt that a stored run was made with."""

from __future__ import annotations

import dataclasses
from typing import Any

from alphaopt_jax._agent import agent as agent_lib
from alphaopt_jax._agent import observation
from alphaopt_jax._storage import digests
from alphaopt_jax.config import AlphaOptConfig

STEP_VERSION = 1
"""Raised when the arithmetic of a step changes: stored runs of AlphaOpt are then made again."""
ROTATION_VERSION = 1
"""Raised when the arithmetic of rotated coordinates changes: the same, for agents acting there."""
LEARNING_VERSION = 1
"""Raised when the arithmetic of learning changes: the same, for agents that learn."""


def optimizer_version(
    agent: agent_lib.Agent | None,
    config: AlphaOptConfig,
    *,
    learn: bool = False,
    averaged: bool = False,
) -> str:
    """Digest of all that the results of AlphaOpt depend on, besides the task and the seed.

    Args:
      agent: The agent; None for one that learns from scratch.
      config: The constants of the optimizer. Their values count, not their names.
      learn: Whether the agent learns.
      averaged: Whether losses are those at `alphaopt.eval_params`.

    Returns:
      16 hexadecimal characters.
    """
    if not learn:  # A frozen agent has no levels, and its stored runs are as valid as before them.
        learning = dataclasses.replace(config.learning, level_change=0.0)
        config = dataclasses.replace(config, learning=learning)
    described: tuple[Any, ...] = (
        "from scratch" if agent is None else agent_lib.digest(agent),
        digests.constants(config),
        observation.CONTRACT_VERSION,
        STEP_VERSION,
        LEARNING_VERSION if learn else 0,
    )
    if agent is not None and agent.block_size:
        described += (ROTATION_VERSION,)
    return digests.digest((*described, "averaged") if averaged else described)
