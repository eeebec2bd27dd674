"""Meta-training on episodes of Omniglot: agents that learn new characters from a few drawings.

The network's initial parameters and the agent that trains it learn in turns. First the initial
parameters learn with the agent frozen, from the gradient of the queries' loss after training; if
that gradient is taken through the training, factors of the agent's rates learn with them. Then the
agent learns by reinforcement, on networks that start from these parameters. Without learned initial
parameters only the agent learns, on fresh networks, which measures the contribution of each.

The agent starts from a pretrained one. A meta-test trains only the network.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import os
import pathlib
from typing import Any

import jax
import optax

from alphaopt_jax._agent import agent as agent_lib
from alphaopt_jax._storage import digests, run_folder
from alphaopt_jax.baselines import _inner_loop, maml
from alphaopt_jax.meta.few_shot import _optimizers as optimizers
from alphaopt_jax.meta.few_shot.config import FewShotConfig
from alphaopt_jax.meta.few_shot.initialization import (
    Initialization,
    load_initialization,
    save_initialization,
)
from alphaopt_jax.meta.ppo import ppo
from alphaopt_jax.meta.training import RunOptions, Schedule, meta_train
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.omniglot.characters import Omniglot
from alphaopt_jax.tasks.omniglot.episodes import episode_family
from alphaopt_jax.tasks.task import Family

_VALIDATION_KEY = 0x5E1EC7
_AGENT, _INITIALIZATION = "agent.safetensors", "initialization.safetensors"


@dataclasses.dataclass(frozen=True)
class FewShotResult:
    """Result of `train_few_shot`: the best agent and initial parameters by validation accuracy.

    Attributes:
      agent: The agent.
      initialization: Initial parameters and rate factors of the network.
      accuracy: Accuracy on the queries of the validation episodes.
      history: One entry after each part of each turn: "turn", "part" ("start", "descent",
        "initialization" or "agent"), "episodes" and "env_steps" (both so far), and "accuracy".
    """

    agent: agent_lib.Agent
    initialization: Initialization
    accuracy: float
    history: list[dict[str, Any]]


def train_few_shot(
    data: Omniglot,
    config: FewShotConfig,
    *,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    show_progress: bool = True,
) -> FewShotResult:
    """Meta-trains an agent and the network's initial parameters on the training characters.

    Args:
      data: The characters; those for tests are not used.
      config: The constants.
      seed: Seed of all randomness.
      folder: Folder for checkpoints and the result; a run resumes from those that it finds there.
        None stores nothing.
      show_progress: Whether to show a progress display.

    Returns:
      The best agent and initial parameters by validation accuracy.

    Raises:
      ValueError: `folder` holds another run.
    """
    identity = {
        "config": digests.digest(digests.constants(config)),
        "characters": data.name,
        "seed": seed,
    }
    path = None if folder is None else pathlib.Path(folder)
    result = None if path is None else _read_result(path, identity)
    if result is None:
        result = _Run(data, config, seed, RunOptions(path, show_progress=show_progress)).train()
        if path is not None:
            _write_result(path, result, identity)
    return result


class _Run:
    """The state of one training, and its parts."""

    def __init__(self, data: Omniglot, config: FewShotConfig, seed: int, options: RunOptions):
        self._data = data
        self._config = config
        self._seed = seed
        self._options = options
        self._agent = _initial_agent(config)
        self._initialization = Initialization()
        self._episodes = 0
        self._env_steps = 0.0
        self._history: list[dict[str, Any]] = []
        self._best: FewShotResult | None = None

    def train(self) -> FewShotResult:
        """Runs all parts of all turns."""
        config = self._config
        self._validate("start", 0)
        if config.turns and config.descent_learning_rate is not None:
            self._learn_initialization("descent", 0, optax.sgd(config.descent_learning_rate))
        for turn in range(max(config.turns, 1)):
            if config.turns:
                optimizer = optimizers.frozen_optimizer(self._agent, config.num_steps)
                if config.initialization == "maml":
                    optimizer = optimizers.with_constant_rates(optimizer)
                self._learn_initialization("initialization", turn, optimizer)
            self._learn_agent(turn)
        assert self._best is not None
        return self._best

    def _learn_initialization(
        self, part: str, turn: int, optimizer: optax.GradientTransformation
    ) -> None:
        """Learns the initial parameters with a fixed optimizer, from those of the task so far."""
        config = self._config.initialization_config
        name = f"initial parameters, {part} {turn + 1}"
        if config.algorithm == "maml":
            rate_factors = self._initialization.rate_factors
            inner_optimizer = optimizers.with_factors(optimizer, rate_factors, name)
        else:
            inner_optimizer = maml.InnerOptimizer(name, lambda _: optimizer)
        result = maml.train_initialization(
            maml.Families(self._training_family(), self._validation_family()),
            inner_optimizer,
            config,
            seed=self._seed + turn + (part == "initialization"),
            folder=self._folder(part, turn),
            show_progress=self._options.show_progress,
        )
        self._initialization = optimizers.as_initialization(result.learned)
        self._episodes += config.episodes
        self._env_steps += float(config.episodes * config.num_steps)
        self._validate(part, turn)

    def _learn_agent(self, turn: int) -> None:
        """Meta-trains the agent on networks that start from the initial parameters so far."""
        config = self._config
        meta_config = config.meta_config
        name = config.protocol.name
        result = meta_train(
            {name: self._training_family()},
            validation={name: self._validation_family()},
            schedule=Schedule(
                num_rounds=config.rounds,
                validate_every=max(config.rounds // 6, 1),
                checkpoint_every=10,
                validation_horizons=(config.num_steps,),
            ),
            config=meta_config,
            method=ppo(meta_config, self._agent),
            seed=self._seed + turn,
            options=dataclasses.replace(self._options, folder=self._folder("agent", turn)),
        )
        self._agent = result.last_agent
        self._episodes += config.rounds * meta_config.groups * meta_config.copies
        self._env_steps += float(result.history[-1]["env_steps"])
        self._validate("agent", turn)

    def _validate(self, part: str, turn: int) -> None:
        """Appends the validation accuracy to the history and updates the best result."""
        optimizer = optimizers.frozen_optimizer(
            self._agent, self._config.num_steps, self._initialization.rate_factors
        )
        accuracy = _validation_accuracy(self._validation_family(), optimizer, self._config)
        self._history.append(
            {
                "turn": turn,
                "part": part,
                "episodes": self._episodes,
                "env_steps": self._env_steps,
                "accuracy": accuracy,
            }
        )
        # With turns, a result without initial parameters does not count.
        complete = self._initialization.params is not None or not self._config.turns
        if complete and (self._best is None or accuracy > self._best.accuracy):
            self._best = FewShotResult(self._agent, self._initialization, accuracy, self._history)

    def _training_family(self) -> Family:
        return self._family(self._data.training, turned=True)

    def _validation_family(self) -> Family:
        return self._family(self._data.validation, turned=False)

    def _family(self, characters: Any, turned: bool) -> Family:
        return episode_family(
            characters,
            self._config.protocol,
            width=self._config.width,
            initial_params=self._initialization.params,
            rate_factors=self._initialization.rate_factors,
            turned=turned,
        )

    def _folder(self, part: str, turn: int) -> pathlib.Path | None:
        folder = self._options.folder
        return None if folder is None else pathlib.Path(folder) / f"{turn}-{part}"


def _initial_agent(config: FewShotConfig) -> agent_lib.Agent:
    """Returns the agent to start from, with the update direction of the config."""
    agent = agent_lib.load_agent(config.initial_agent)
    return dataclasses.replace(agent, update_direction=config.meta.agent.update_direction)


def _validation_accuracy(
    family: Family, optimizer: optax.GradientTransformation, config: FewShotConfig
) -> float:
    """Mean accuracy on the queries after training on each of the validation episodes."""
    keys = jax.random.split(jax.random.key(_VALIDATION_KEY), config.validation_episodes)
    evaluate = _inner_loop.make_evaluate(family, lambda _: optimizer, config.num_steps)
    accuracy, _ = jax.jit(evaluate)(maml.Learned(None, {}), *rollouts.draw(family, keys))
    return float(accuracy)


def _write_result(folder: pathlib.Path, result: FewShotResult, identity: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    agent_lib.save_agent(folder / _AGENT, result.agent)
    if result.initialization.params is not None:
        save_initialization(folder / _INITIALIZATION, result.initialization)
    measured = {"accuracy": result.accuracy, "history": result.history}
    run_folder.write_result(folder, identity, measured)


def _read_result(folder: pathlib.Path, identity: Mapping[str, Any]) -> FewShotResult | None:
    """Returns the result of a finished run, or None."""
    measured = run_folder.read_result(folder, identity)
    if measured is None:
        return None
    path = folder / _INITIALIZATION
    initialization = load_initialization(path) if path.exists() else Initialization()
    return FewShotResult(agent_lib.load_agent(folder / _AGENT), initialization, **measured)
