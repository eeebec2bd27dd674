"""Interface of meta-training methods: the state before the first round, and one round.

`ppo.py` and `evolution.py` implement it; `training.py` runs any method.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import chex
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from alphaopt_jax.meta import _population as population
from alphaopt_jax.tasks.task import Family


def average_weight(rounds: Int[Array, ""]) -> Float[Array, ""]:
    """Returns the weight of the latest agent in the moving average that is validated.

    The average covers about the last hundred rounds, or the last fifth of all rounds if that is
    fewer.

    Args:
      rounds: `int32[]`, rounds before this one.
    """
    return jnp.maximum(0.01, 1.0 / (1.0 + 0.2 * rounds.astype(jnp.float32)))


class LearnerState(Protocol):
    """State of a method: a NamedTuple of arrays with at least this field."""

    @property
    def averaged_agent(self) -> chex.ArrayTree:
        """Parameters of the agent, averaged over the last rounds; these are validated and saved."""


class FamilyState(NamedTuple):
    """State of one family between rounds.

    Attributes:
      population: Running episodes.
      method_state: The method's own state for the family, a pytree of arrays.
    """

    population: population.Population
    method_state: Any


Round = Callable[
    [Any, FamilyState, Key[Array, ""], chex.Numeric],
    tuple[Any, FamilyState, dict[str, Shaped[Array, ""]]],
]
"""Maps the learner state, a family's state, a key (consumed) and the learning rate of the agent's
own optimizer to the next learner state, the family's next state, and metrics."""


class Method(NamedTuple):
    """A method of meta-training.

    Attributes:
      name: Name in tables and run folders.
      init: Maps a key (consumed) to the learner state before the first round.
      init_family: Returns a family's `method_state` before its first round.
      make_round: Maps a family to its round: a rollout of its population, and learning from it.
    """

    name: str
    init: Callable[[Key[Array, ""]], Any]
    init_family: Callable[[], Any]
    make_round: Callable[[Family], Round]
