"""What a way of meta-training is: how it begins, and one round of it.

`ppo.py` and `evolution.py` each make one; `training.py` runs any.
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
    """Weight of a round's agent in the average that is validated.

    About the last hundred rounds count, and a fifth of them all while there are fewer.

    Args:
      rounds: `int32[]`, rounds before this one.
    """
    return jnp.maximum(0.01, 1.0 / (1.0 + 0.2 * rounds.astype(jnp.float32)))


class Learned(Protocol):
    """What a method trains: a NamedTuple of arrays that holds at least this."""

    @property
    def averaged_agent(self) -> chex.ArrayTree:
        """Parameters of the agent, averaged over the last rounds: what is validated and kept."""


class FamilyState(NamedTuple):
    """What is kept for each family between rounds.

    Attributes:
      population: Its episodes under way.
      kept: Whatever the method remembers of the family, a pytree of arrays.
    """

    population: population.Population
    kept: Any


Round = Callable[
    [Any, FamilyState, Key[Array, ""], chex.Numeric],
    tuple[Any, FamilyState, dict[str, Shaped[Array, ""]]],
]
"""From what was learned, a family's state, a key (consumed) and the learning rate of the agent's
own optimizer to the first two anew, and metrics."""


class Method(NamedTuple):
    """A way of meta-training.

    Attributes:
      name: Its name in tables and folders.
      init: From a key to what it trains.
      init_family: What it remembers of a family before the first round.
      make_round: From a family to one round: a rollout of its population, and learning from it.
    """

    name: str
    init: Callable[[Key[Array, ""]], Any]
    init_family: Callable[[], Any]
    make_round: Callable[[Family], Round]
