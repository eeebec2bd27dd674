"""Recipes of the pretrained agents for new characters, by name."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib

from alphaopt_jax._agent import agent
from alphaopt_jax.meta import MetaConfig
from alphaopt_jax.meta.few_shot import initialization, training
from alphaopt_jax.meta.few_shot.config import FewShotConfig
from alphaopt_jax.pretrained import _files
from alphaopt_jax.pretrained.training import Recipe, TrainingResult
from alphaopt_jax.tasks.omniglot import characters
from alphaopt_jax.tasks.omniglot.episodes import MULTI_SHOT

LEARNED = "omniglot-learned"
"""Name of the agent that trains networks from its learned initial parameters."""
RANDOM = "omniglot-random"
"""Name of the agent that trains fresh networks."""

# A shared reward needs no gradient of the queries' loss, which would be the largest cost.
_SHARED_REWARD = MetaConfig(reward="shared", reward_every="interval", coordinate_loss_weight=0.0)
_GRADIENT_STEPS = dataclasses.replace(
    _SHARED_REWARD, agent=dataclasses.replace(_SHARED_REWARD.agent, update_direction="gradient")
)
_LEARNED_CONFIG = FewShotConfig(
    MULTI_SHOT,
    num_steps=100,
    width=32,
    turns=1,
    initialization="maml",
    initialization_episodes=2000,
    initialization_steps=10,
    initialization_learning_rate=2e-3,
    descent_learning_rate=0.1,
    rounds=30,
    meta=_GRADIENT_STEPS,
)
_WITHOUT_INITIALIZATION = _LEARNED_CONFIG.without_initialization()
# Validation accuracy 61.9 %; with a quarter of the tasks and half of the rounds 60.3 %.
_RANDOM_CONFIG = dataclasses.replace(
    _WITHOUT_INITIALIZATION,
    rounds=120,
    meta=dataclasses.replace(_WITHOUT_INITIALIZATION.meta, groups=16),
)
CONFIGS: Mapping[str, FewShotConfig] = {LEARNED: _LEARNED_CONFIG, RANDOM: _RANDOM_CONFIG}
"""Constants of each agent's training, by name."""


def _recipe(config: FewShotConfig, summary: str, *weaknesses: str) -> Recipe:
    def train(seed: int, folder: pathlib.Path, show_progress: bool) -> TrainingResult:
        data = characters.load_omniglot()
        result = training.train_few_shot(
            data, config, seed=seed, folder=folder, show_progress=show_progress
        )

        def save(path: pathlib.Path) -> None:
            agent.save_agent(path, result.agent)
            if result.initialization.params is not None:
                initializations = path.parent / _files.INITIALIZATIONS.name
                initializations.mkdir(exist_ok=True)
                initialization.save_initialization(
                    initializations / path.name, result.initialization
                )

        return TrainingResult(
            save=save,
            trained_on=[f"{config.protocol.name}: training alphabets of {data.name}"],
            selected_on=[f"{config.protocol.name}: validation alphabets"],
            rounds=config.total_rounds,
            env_steps=int(result.history[-1]["env_steps"]),
            score=1.0 - result.accuracy,  # On cards, lower is better.
        )

    return Recipe(summary, weaknesses, train)


_ONE_NETWORK = f"Trained on one network, of four convolutions with {_LEARNED_CONFIG.width} filters."
RECIPES: Mapping[str, Recipe] = {
    LEARNED: _recipe(
        _LEARNED_CONFIG,
        "AlphaOpt for 20 new characters of an alphabet in 100 steps, with initial parameters and"
        " rate factors learned with it.",
        _ONE_NETWORK,
        "For networks with other initial parameters, use the general agent.",
        "The agent's own learning gained 0.2 points on validation alphabets, which is within the"
        " noise: the gain comes from the initial parameters and rate factors.",
    ),
    RANDOM: _recipe(
        _RANDOM_CONFIG,
        "AlphaOpt for 20 new characters of an alphabet in 100 steps, from fresh networks.",
        _ONE_NETWORK,
    ),
}
"""Recipes by name, for `alphaopt_jax.pretrained.train_pretrained`; initial parameters go to a
folder `initializations` next to the agent."""
