"""What `benchmarks.omniglot` meta-trains: the literature's initial parameters, and AlphaOpt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import optax

from alphaopt_jax.baselines import initializations, rollouts
from alphaopt_jax.meta import few_shot
from alphaopt_jax.tasks.omniglot import Omniglot
from alphaopt_jax.tasks.omniglot_episodes import MULTI_SHOT, Protocol, episodes
from alphaopt_jax.tasks.omniglot_episodes import few_shot as few_shot_protocol

SINGLE_RATE = 0.1
"""Of the gradient descent that rivals learn through; where they learn rates, it is the first."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a protocol is learned and tested; the same for all.

    Attributes:
      protocol: What an episode consists of.
      num_steps: Steps of training in a meta-test.
      inner_steps: Steps of an episode through which initial parameters learn.
      episodes: That they learn from, in all.
      learning_rate: Of what moves them.
      rounds: Of the agent's learning, in all.
      turns: In which initial parameters and agent learn.
      width: Filters of each of the network's convolutions.
      test_episodes: Of the meta-test.
      validation_episodes: To choose by.
      longer: Steps of a longer meta-test, or 0 for none.
    """

    protocol: Protocol
    num_steps: int
    inner_steps: int
    episodes: int
    learning_rate: float = 2e-3
    rounds: int = 40
    turns: int = 2
    width: int = 32
    test_episodes: int = 600
    validation_episodes: int = 40
    longer: int = 0

    @property
    def looks(self) -> int:
        """Updates between two looks at the queries."""
        return max(self.num_steps // 10, 1)


PLANS: Mapping[str, Plan] = {
    plan.protocol.name: plan
    for plan in (
        Plan(MULTI_SHOT, num_steps=100, inner_steps=10, episodes=8000, longer=500),
        *(
            Plan(few_shot_protocol(ways, shots), num_steps=10, inner_steps=5, episodes=episodes)
            for ways, shots, episodes in (
                (5, 1, 16000),
                (5, 5, 8000),
                (20, 1, 6000),
                (20, 5, 3000),
            )
        ),
    )
}
"""By the protocol's name; the first is the main one."""


@dataclasses.dataclass(frozen=True)
class Rival:
    """A way to learn initial parameters.

    Attributes:
      name: What tables call it.
      direction: As in `InitializationConfig`.
      make: From what the optimizer is made of to the optimizer that it learns through.
      made_of: From initial parameters to what that is made of at first.
      learns_rates: Whether it is tested with the rates that it learned, and not with tuned ones.
    """

    name: str
    direction: initializations.Direction
    make: rollouts.OptimizerFactory = lambda made_of: optax.sgd(SINGLE_RATE)
    made_of: Callable[[chex.ArrayTree], chex.ArrayTree] = lambda params: {}
    learns_rates: bool = False


RIVALS = (
    Rival("Reptile", "end"),
    Rival("first-order MAML", "first_order"),
    Rival("MAML", "second_order"),
    Rival(
        "Meta-SGD",
        "second_order",
        initializations.scale_by_rates,
        lambda params: jax.tree.map(lambda leaf: jnp.full_like(leaf, SINGLE_RATE), params),
        learns_rates=True,
    ),
)


def learn_rival(
    rival: Rival, plan: Plan, data: Omniglot, folder: Path
) -> initializations.InitializationResult:
    """Learns initial parameters, or goes on with what is in `folder`."""
    training, validation = (
        episodes(characters, plan.protocol, width=plan.width)
        for characters in (data.training, data.validation)
    )
    # Reptile's moves are shares of a way, those of the others Adam's steps.
    rate = 0.5 if rival.direction == "end" else plan.learning_rate
    config = initializations.InitializationConfig(
        rival.direction,
        plan.inner_steps,
        episodes=plan.episodes,
        learning_rate=rate,
        validate_every=max(plan.episodes // 20 // 4 * 4, 4),
        validation_episodes=plan.validation_episodes,
    )
    return initializations.train_initialization(
        training,
        validation,
        rival.make,
        rival.made_of,
        config,
        label=f"{rival.name}, {plan.protocol.name}",
        folder=folder / f"{_slug(plan.protocol.name)}-{_slug(rival.name)}",
    )


def learn_agent(
    plan: Plan, data: Omniglot, folder: Path, *, initialization: bool
) -> few_shot.FewShotResult:
    """Meta-trains AlphaOpt, with or without initial parameters, or reads what was trained."""
    turns = plan.turns if initialization else 0
    config = few_shot.FewShotConfig(
        plan.protocol,
        plan.num_steps,
        width=plan.width,
        turns=turns,
        initialization_episodes=plan.episodes // max(turns, 1),
        initialization_steps=plan.inner_steps,
        initialization_rate=plan.learning_rate,
        rounds=plan.rounds // max(turns, 1),
        validation_episodes=plan.validation_episodes,
    )
    kind = "learned" if initialization else "random"
    place = folder / f"{_slug(plan.protocol.name)}-alphaopt-{kind}"
    return few_shot.train_few_shot(data, config, folder=place)


def _slug(name: str) -> str:
    return name.lower().replace(",", "").replace(" ", "_")
