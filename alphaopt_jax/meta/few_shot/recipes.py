"""How each agent that is meant for new characters is trained, by its name."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib

from alphaopt_jax._agent import agent
from alphaopt_jax.meta import MetaConfig
from alphaopt_jax.meta.few_shot import initialization, training
from alphaopt_jax.meta.few_shot.training import FewShotConfig
from alphaopt_jax.pretrained import _files
from alphaopt_jax.pretrained.training import Recipe, TrainingResult
from alphaopt_jax.tasks.omniglot import characters
from alphaopt_jax.tasks.omniglot.episodes import MULTI_SHOT

LEARNED = "omniglot-learned"
"""An agent with initial parameters that belong to it."""
RANDOM = "omniglot-random"
"""An agent that trains fresh networks."""

# Rewards of all leaves alike need no gradient of the queries' loss, which would cost most.
_ALIKE = MetaConfig(credit="shared", judged="interval", coordinate_cost=0.0)
_ALONG_GRADIENTS = dataclasses.replace(
    _ALIKE, optimizer=dataclasses.replace(_ALIKE.optimizer, direction="gradient")
)
_LEARNED_CONFIG = FewShotConfig(
    MULTI_SHOT,
    num_steps=100,
    width=32,
    turns=1,
    initialization="maml",
    initialization_episodes=2000,
    initialization_steps=10,
    initialization_rate=2e-3,
    descent=0.1,
    rounds=30,
    meta=_ALONG_GRADIENTS,
)
_ALONE = _LEARNED_CONFIG.without_initialization()
# On validation alphabets 61.9 %; with a quarter of the tasks and half of the rounds 60.3 %.
_RANDOM_CONFIG = dataclasses.replace(
    _ALONE, rounds=120, meta=dataclasses.replace(_ALONE.meta, groups=16)
)
CONFIGS: Mapping[str, FewShotConfig] = {LEARNED: _LEARNED_CONFIG, RANDOM: _RANDOM_CONFIG}
"""The constants of each."""


def _recipe(config: FewShotConfig, summary: str, *weaknesses: str) -> Recipe:
    def train(seed: int, folder: pathlib.Path, show: bool) -> TrainingResult:
        data = characters.load_omniglot()
        result = training.train_few_shot(data, config, seed=seed, folder=folder, show=show)

        def save(path: pathlib.Path) -> None:
            agent.save_agent(path, result.agent)
            if result.initialization.params is not None:
                beside = path.parent / _files.INITIALIZATIONS.name
                beside.mkdir(exist_ok=True)
                initialization.save_initialization(beside / path.name, result.initialization)

        last = result.history[-1]
        return TrainingResult(
            save=save,
            trained_on=[f"{config.protocol.name}: training alphabets of {data.name}"],
            selected_on=[f"{config.protocol.name}: validation alphabets"],
            rounds=max(config.turns, 1) * config.rounds,
            env_steps=int(last["env_steps"]),
            # Of cards, the lower the better.
            score=1.0 - result.accuracy,
        )

    return Recipe(summary, weaknesses, train)


_ONE_NETWORK = "It was trained on one network, of four convolutions of {} filters."
RECIPES: Mapping[str, Recipe] = {
    LEARNED: _recipe(
        CONFIGS[LEARNED],
        "AlphaOpt for 20 new characters of an alphabet in 100 steps, with initial parameters and"
        " factors of rates that it was trained with.",
        _ONE_NETWORK.format(_LEARNED_CONFIG.width),
        "From other initial parameters use the general agent.",
        "The agent's own learning gained 0.2 points on validation alphabets, less than they can"
        " tell: what has learned are the initial parameters and the factors.",
    ),
    RANDOM: _recipe(
        CONFIGS[RANDOM],
        "AlphaOpt for 20 new characters of an alphabet in 100 steps, from fresh networks.",
        _ONE_NETWORK.format(_LEARNED_CONFIG.width),
    ),
}
"""Recipes by the agents' names, for `alphaopt_jax.pretrained.train_pretrained`."""
