"""Agents: the learned parameters and the version of their observation contract, as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import math
import os
import typing

import chex
import jax
import jax.numpy as jnp

from alphaopt_jax._agent import network as network_lib
from alphaopt_jax._agent import observation
from alphaopt_jax._storage import digests
from alphaopt_jax._storage import params as params_lib
from alphaopt_jax.config import AgentConfig, UpdateDirection
from alphaopt_jax.pretrained import _files

_KIND = "alphaopt-agent"
_OTHERWISE = " Use agent=None for a fresh agent that learns while it optimizes."


@dataclasses.dataclass(frozen=True, eq=False)
class Agent:
    """A trained actor-critic. Agents of equal parameters and constants are equal.

    Attributes:
      params: Parameters of the actor-critic: a nested dict of `float32` arrays.
      contract: Version of the observation contract that the agent was trained with.
      max_log_rate: Bound on its log rates.
      inverse_sqrt_steps: Time scale of the inverse square root decay of all rates where the horizon
        is unknown; infinite for no decay.
      update_direction: The vector that its rates multiply, as in `AgentConfig`.
      block_size: Largest width of the blocks of rotated coordinates, as in `AgentConfig`.

    Raises:
      ValueError: The parameters or the contract do not fit this version of alphaopt_jax.

    Example:
      >>> load_agent("base") == load_agent("base")
      True
      >>> len({load_agent("base"), load_agent("base")})
      1
    """

    params: Mapping[str, chex.ArrayTree]
    contract: int = observation.CONTRACT_VERSION
    max_log_rate: float = 2.0
    inverse_sqrt_steps: float = math.inf
    update_direction: UpdateDirection = "adam"
    block_size: int = 0

    def __post_init__(self) -> None:
        """Checks all fields."""
        if self.contract != observation.CONTRACT_VERSION:
            raise ValueError(
                f"This agent observes by contract {self.contract}, but this alphaopt_jax offers"
                f" contract {observation.CONTRACT_VERSION}. Train it again, or install the"
                " version of alphaopt_jax that it was trained with."
            )
        if not 0.0 < self.max_log_rate < math.inf:
            raise ValueError(
                "`max_log_rate`, which bounds an agent's log rates, must be above zero and finite;"
                f" got {self.max_log_rate}."
            )
        if not self.inverse_sqrt_steps > 0:
            raise ValueError(
                "`inverse_sqrt_steps`, the time scale of the decay of an agent's rates, must be"
                f" above zero, or infinite for no decay; got {self.inverse_sqrt_steps}."
            )
        if self.update_direction not in typing.get_args(UpdateDirection):
            raise ValueError(
                "`update_direction`, the vector that an agent's rates multiply, must be one of"
                f" {typing.get_args(UpdateDirection)}; got {self.update_direction!r}."
            )
        if self.block_size < 0:
            raise ValueError(
                "`block_size`, the width of the blocks of rotated coordinates, must not be below"
                f" zero; got {self.block_size}. 0 is for the parameters' own coordinates."
            )
        found = {path: jnp.shape(leaf) for path, leaf in params_lib.flatten(self.params).items()}
        try:
            network = self.network
        except (KeyError, TypeError, IndexError, AttributeError):
            raise ValueError(
                "An agent needs the parameters of an actor and a critic"
                f" (actor/hidden/kernel, ...), but has {sorted(found)}."
            ) from None
        fresh = jax.eval_shape(lambda: network_lib.init_params(jax.random.key(0), network))
        expected = {path: leaf.shape for path, leaf in params_lib.flatten(fresh).items()}
        if found != expected:
            wrong = sorted(set(found.items()) ^ set(expected.items()))
            raise ValueError(
                f"The agent's parameters do not fit observation contract {self.contract}, which"
                f" has {observation.NUM_FEATURES} features. Arrays that differ: {wrong}."
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Agent):
            return NotImplemented
        return self is other or self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    @functools.cached_property
    def _digest(self) -> str:
        constants = (
            self.contract,
            self.max_log_rate,
            self.inverse_sqrt_steps,
            self.update_direction,
            *((self.block_size,) if self.block_size else ()),
        )
        return digests.digest((dict(self.params), constants))

    @property
    def config(self) -> AgentConfig:
        """The constants of this agent, with the sizes of its networks."""
        actor, critic = self.params["actor"], self.params["critic"]
        return AgentConfig(
            actor_hidden=actor["hidden"]["kernel"].shape[1] if "hidden" in actor else 0,
            critic_hidden=critic["hidden"]["kernel"].shape[1],
            leaf_hidden=actor["leaf"]["first"]["kernel"].shape[1] if "leaf" in actor else 0,
            max_log_rate=self.max_log_rate,
            inverse_sqrt_steps=self.inverse_sqrt_steps,
            update_direction=self.update_direction,
            block_size=self.block_size,
        )

    @property
    def network(self) -> network_lib.ActorCritic:
        """The Flax module of the parameters."""
        return network_lib.make_network(self.config)


def digest(agent: Agent) -> str:
    """Digest of an agent: equal for equal parameters and constants, independent of field names.

    Args:
      agent: The agent.

    Returns:
      16 hexadecimal characters.

    Example:
      >>> digest(load_agent("base")) == digest(load_agent("base"))
      True
    """
    return agent._digest


def save_agent(path: str | os.PathLike[str], agent: Agent) -> None:
    """Writes an agent to a safetensors file.

    Args:
      path: The file to write.
      agent: The agent.

    Example:
      >>> import tempfile, jax, jax.numpy as jnp, alphaopt_jax as alphaopt
      >>> state = alphaopt.alphaopt(agent=None).init(jnp.zeros(3))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     alphaopt.save_agent(f"{folder}/mine.safetensors", alphaopt.agent_from_state(state))
      ...     agent = alphaopt.load_agent(f"{folder}/mine.safetensors")
      >>> tx = alphaopt.alphaopt(agent=agent)
    """
    params_lib.write_params(
        path,
        agent.params,
        kind=_KIND,
        metadata={
            "contract": str(agent.contract),
            "max_log_rate": repr(agent.max_log_rate),
            "inverse_sqrt_steps": repr(agent.inverse_sqrt_steps),
            "update_direction": agent.update_direction,
            "block_size": str(agent.block_size),
        },
    )


def load_agent(name_or_path: str | os.PathLike[str]) -> Agent:
    """Reads an agent: a file written by `save_agent`, or a pretrained agent by its name.

    Args:
      name_or_path: A path, or the name of a pretrained agent.

    Returns:
      The agent.

    Raises:
      FileNotFoundError: There is no such file and no such pretrained agent.
      ValueError: The file holds no agent, or one that this version cannot use.
    """
    path = _files.find_file(name_or_path, _files.AGENTS, what="agent", otherwise=_OTHERWISE)

    def make(params: Mapping[str, chex.ArrayTree], metadata: Mapping[str, str]) -> Agent:
        try:
            return Agent(
                params=params,
                contract=int(metadata["contract"]),
                max_log_rate=float(metadata["max_log_rate"]),
                inverse_sqrt_steps=float(
                    # Files written before version 0.1 have the second name.
                    metadata.get("inverse_sqrt_steps", metadata.get("anytime_steps", math.inf))
                ),
                update_direction=typing.cast(
                    UpdateDirection,
                    metadata.get("update_direction", metadata.get("direction", "adam")),
                ),
                block_size=int(metadata.get("block_size", 0)),
            )
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{os.fspath(path)!r} does not hold a usable agent. {error}"
            ) from error

    params, metadata = params_lib.read_params(
        path, kind=_KIND, what="an agent", written_by="alphaopt_jax.save_agent", check=make
    )
    return make(params, metadata)


def pretrained_agents() -> list[str]:
    """Names of the agents in this package, sorted.

    Example:
      >>> "base" in pretrained_agents()
      True
    """
    return _files.pretrained_names(_files.AGENTS)
