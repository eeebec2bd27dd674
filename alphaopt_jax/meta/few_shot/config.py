"""Constants of meta-training on episodes of Omniglot."""

from __future__ import annotations

import dataclasses

from alphaopt_jax.baselines import maml
from alphaopt_jax.meta.config import MetaConfig
from alphaopt_jax.tasks.omniglot.episodes import Protocol


@dataclasses.dataclass(frozen=True)
class FewShotConfig:
    """Constants of `train_few_shot`.

    Attributes:
      protocol: Composition of an episode.
      num_steps: Training steps per episode; the agent observes this number.
      width: Filters per convolution of the network.
      turns: Number of turns; in each one first the initial parameters learn, then the agent. With
        0 only the agent learns, on fresh networks.
      initialization: How the initial parameters learn, as in `maml.InitializationConfig`. With
        "maml" the agent's rates are constants under differentiation, and factors of them
        are learned with the initial parameters.
      initialization_episodes: Episodes from which the initial parameters learn, per turn.
      initialization_batch_size: Episodes per update of the initial parameters.
      initialization_steps: Training steps per episode while the initial parameters learn, at most
        `num_steps`.
      initialization_learning_rate: Adam's learning rate for the initial parameters.
      descent_learning_rate: Learning rate of the gradient descent on episodes through which the
        initial parameters learn once before the first turn, when the agent is not yet trained on
        episodes; None skips this.
      rounds: Rounds of meta-training of the agent per turn.
      meta: Constants of the agent's meta-training. Its rates multiply
        `meta.agent.update_direction`.
      initial_agent: Name or path of the agent that meta-training starts from.
      validation_episodes: Number of validation episodes, which are the same at every validation.
    """

    protocol: Protocol
    num_steps: int
    width: int = 64
    turns: int = 2
    initialization: maml.Algorithm = "fomaml"
    initialization_episodes: int = 1000
    initialization_batch_size: int = 4
    initialization_steps: int = 10
    initialization_learning_rate: float = 1e-3
    descent_learning_rate: float | None = None
    rounds: int = 60
    meta: MetaConfig = dataclasses.field(default_factory=MetaConfig)
    initial_agent: str = "diagonal"
    validation_episodes: int = 40

    def __post_init__(self) -> None:
        """Checks that the constants fit each other."""
        direction = self.meta.agent.update_direction
        if self.initialization == "maml" and self.turns and direction != "gradient":
            raise ValueError(
                "Initial parameters learned by MAML need an agent whose rates multiply the"
                f" gradient, but `meta.agent.update_direction` is {direction!r}."
            )

    def without_initialization(self) -> FewShotConfig:
        """Returns a config of an agent that learns alone, on fresh networks, in as many rounds.

        The agent's rates multiply normalized gradients, since gradients of fresh networks can have
        any size.
        """
        agent = dataclasses.replace(self.meta.agent, update_direction="adam")
        meta = dataclasses.replace(self.meta, agent=agent)
        return dataclasses.replace(self, turns=0, rounds=self.total_rounds, meta=meta)

    @property
    def total_rounds(self) -> int:
        """Rounds of meta-training of the agent, over all turns."""
        return max(self.turns, 1) * self.rounds

    @property
    def total_episodes(self) -> int:
        """Episodes from which the initial parameters learn, over all turns."""
        descends = self.turns > 0 and self.descent_learning_rate is not None
        return (self.turns + descends) * self.initialization_episodes

    @property
    def meta_config(self) -> MetaConfig:
        """Constants of the agent's meta-training, for episodes of `num_steps` steps."""
        return dataclasses.replace(
            self.meta,
            min_horizon=self.num_steps,
            max_horizon=self.num_steps,
            intervals_per_rollout=min(self.meta.intervals_per_rollout, self.num_steps),
            unknown_horizon_fraction=0.0,
        )

    @property
    def initialization_config(self) -> maml.InitializationConfig:
        """Constants of the initial parameters' learning, per turn."""
        batch_size = self.initialization_batch_size
        return maml.InitializationConfig(
            self.initialization,
            min(self.initialization_steps, self.num_steps),
            episodes=self.initialization_episodes,
            meta_batch_size=batch_size,
            learning_rate=self.initialization_learning_rate,
            validate_every=max(self.initialization_episodes // (10 * batch_size), 1) * batch_size,
            validation_episodes=self.validation_episodes,
        )
