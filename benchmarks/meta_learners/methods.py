"""The methods compared by `benchmarks.meta_learners`, and the settings tried for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import functools
import itertools
from typing import Any

from alphaopt_jax.meta import MetaConfig, Method
from alphaopt_jax.meta.evolution import evolution
from alphaopt_jax.meta.ppo import ppo

# The horizon is always an observation, as it is during validation.
CONFIG = MetaConfig(max_horizon=300, unknown_horizon_fraction=0.0)

_TRUNCATED = 4  # Rollouts in an episode of persistent ES, which learns from parts of episodes.


@dataclasses.dataclass(frozen=True)
class Setting:
    """Tuned constants of a method.

    Attributes:
      learning_rate: Learning rate of the agent's own optimizer.
      noise_std: Standard deviation of PPO's noise on the log rates, or of the noise that evolution
        adds to the agent's parameters.
    """

    learning_rate: float
    noise_std: float


@dataclasses.dataclass(frozen=True)
class MetaLearner:
    """A method under comparison.

    Attributes:
      name: Name in tables and pictures.
      build: Makes the config of meta-training and the method from a setting.
      settings: Settings to choose from.
      rounds_per_episode: Rounds in an episode. A method with several has more, shorter rounds.
    """

    name: str
    build: Callable[[Setting], tuple[MetaConfig, Method]]
    settings: tuple[Setting, ...]
    rounds_per_episode: int = 1

    @property
    def slug(self) -> str:
        """The name as part of a folder's name."""
        return self.name.lower().replace(",", "").replace(" ", "_")


def _by_ppo(setting: Setting, **more: Any) -> tuple[MetaConfig, Method]:
    config = dataclasses.replace(
        CONFIG,
        ppo=dataclasses.replace(CONFIG.ppo, learning_rate=setting.learning_rate),
        action_std=setting.noise_std,
        leaf_action_std=setting.noise_std,
        **more,
    )
    return config, ppo(config)


def _by_evolution(setting: Setting, *, strategy: Any, rollouts: int) -> tuple[MetaConfig, Method]:
    config = dataclasses.replace(
        CONFIG,
        ppo=dataclasses.replace(CONFIG.ppo, learning_rate=setting.learning_rate),
        intervals_per_rollout=CONFIG.intervals_per_rollout // rollouts,
        rollouts_per_episode=rollouts,
    )
    return config, evolution(config, strategy, perturbation_std=setting.noise_std)


def _grid(rates: Sequence[float], noise_stds: Sequence[float]) -> tuple[Setting, ...]:
    return tuple(Setting(*each) for each in itertools.product(rates, noise_stds))


# PPO is insensitive to its noise, evolution is not.
RATES = (1e-3, 3e-3, 1e-2)
_PPO_GRID = _grid(RATES, (0.3,))
_EVOLUTION_GRID = _grid(RATES, (0.02, 0.1))

DIVIDED, SHARED = "PPO, divided reward", "PPO, shared reward"
EVOLUTION, PERSISTENT = "OpenAI-ES", "persistent ES"

META_LEARNERS = (
    MetaLearner(DIVIDED, _by_ppo, _PPO_GRID),
    MetaLearner(SHARED, functools.partial(_by_ppo, reward="shared"), _PPO_GRID),
    MetaLearner(
        EVOLUTION,
        functools.partial(_by_evolution, strategy="openai_es", rollouts=1),
        _EVOLUTION_GRID,
    ),
    MetaLearner(
        PERSISTENT,
        functools.partial(_by_evolution, strategy="persistent_es", rollouts=_TRUNCATED),
        _EVOLUTION_GRID,
        rounds_per_episode=_TRUNCATED,
    ),
)
"""All methods. The network, the tasks and the environment are the same for all of them."""
