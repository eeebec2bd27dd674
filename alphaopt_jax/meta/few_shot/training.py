"""Agents that learn new characters from a few drawings: meta-training on episodes of Omniglot.

During meta-training both change, what the network starts from and the agent that trains it, in
turns: the initial parameters learn with the agent frozen (and before that, where the constants say
so, through plain gradient descent), by the queries' gradient where training ended, and so do
factors of the agent's rates where the training is differentiated; then the agent learns from there,
by reinforcement. During meta-testing only the network changes. Without learned initial parameters
the agent alone learns, from fresh networks, so that what either is worth can be told apart.

The agent goes on from a shipped one, as one would who has a task of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import os
import pathlib
from typing import Any

import chex
import jax
import optax

from alphaopt_jax._agent import agent as agent_lib
from alphaopt_jax._optimizer import inspection, transform
from alphaopt_jax._storage import run_folder
from alphaopt_jax.baselines import _inner_loop, maml
from alphaopt_jax.baselines.maml import scale_by_factors
from alphaopt_jax.meta.config import MetaConfig
from alphaopt_jax.meta.few_shot.initialization import (
    Initialization,
    load_initialization,
    save_initialization,
)
from alphaopt_jax.meta.ppo import ppo
from alphaopt_jax.meta.training import RunOptions, Schedule, meta_train
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.omniglot.characters import Omniglot
from alphaopt_jax.tasks.omniglot.episodes import Protocol, episode_family
from alphaopt_jax.tasks.task import Family

_VALIDATION_KEY = 0x5E1EC7
_AGENT, _INITIALIZATION = "agent.safetensors", "initialization.safetensors"
# Factors are learned a tenth as large as they are: as if they were the rates of a descent at 0.1.
_UNIT = 0.1


@dataclasses.dataclass(frozen=True)
class FewShotConfig:
    """Constants.

    Attributes:
      protocol: What an episode consists of.
      num_steps: Steps of training in an episode; the agent is told.
      width: Filters of each of the network's convolutions.
      turns: How often initial parameters and agent learn, one after the other; with 0 the agent
        learns alone, from fresh networks.
      initialization: Where the initial parameters are moved, as in `InitializationConfig`. What
        differentiates through a training takes the agent's rates as given, and learns factors of
        them with the initial parameters.
      initialization_episodes: For the initial parameters, each time that they learn.
      initialization_at_once: Of these, how many a move is made of.
      initialization_steps: The first so many steps of an episode are made before its queries say
        where the initial parameters are to go.
      initialization_rate: Of the Adam that moves them.
      descent: Before the first turn the initial parameters learn through gradient descent at this
        rate, when the agent has not yet learned to train from any; None is for not.
      rounds: Of the agent's learning, in each turn.
      meta: Constants of that; `meta.optimizer.direction` says what the agent's rates multiply.
      start: The agent that goes on learning, by its name or path.
      validation_episodes: To choose by, the same ones each time.
    """

    protocol: Protocol
    num_steps: int
    width: int = 64
    turns: int = 2
    initialization: maml.Algorithm = "fomaml"
    initialization_episodes: int = 1000
    initialization_at_once: int = 4
    initialization_steps: int = 10
    initialization_rate: float = 1e-3
    descent: float | None = None
    rounds: int = 60
    meta: MetaConfig = dataclasses.field(default_factory=MetaConfig)
    start: str = "base"
    validation_episodes: int = 40

    def __post_init__(self) -> None:
        """Refuses what does not fit, where it is made."""
        along = self.meta.optimizer.direction
        if self.initialization == "maml" and self.turns and along != "gradient":
            raise ValueError(
                "Initial parameters of second order need an agent whose rates multiply the"
                f" gradient, but `meta.optimizer.direction` is {along!r}."
            )

    def without_initialization(self) -> FewShotConfig:
        """Returns the same for an agent that learns alone, in as many rounds.

        Its rates multiply normalized gradients: those of a fresh network may be of any size.
        """
        optimizer = dataclasses.replace(self.meta.optimizer, direction=None)
        meta = dataclasses.replace(self.meta, optimizer=optimizer)
        return dataclasses.replace(
            self, turns=0, rounds=max(self.turns, 1) * self.rounds, meta=meta
        )

    @property
    def total_episodes(self) -> int:
        """That initial parameters learn from, in all."""
        times = self.turns + (self.turns > 0 and self.descent is not None)
        return times * self.initialization_episodes

    @property
    def meta_config(self) -> MetaConfig:
        """Those of the agent's learning, for episodes of this length."""
        return dataclasses.replace(
            self.meta,
            min_horizon=self.num_steps,
            max_horizon=self.num_steps,
            rollout_length=min(self.meta.rollout_length, self.num_steps),
            unknown_horizon=0.0,
        )


@dataclasses.dataclass(frozen=True)
class FewShotResult:
    """What comes out of `train_few_shot`: the best pair by validation.

    Attributes:
      agent: The agent.
      initialization: What it trains the network from.
      accuracy: Share of the validation's queries told right.
      history: A line after each part of each turn: "turn", "part" ("start", "descent",
        "initialization" or "agent"), "episodes" (so far), "env_steps" (likewise) and "accuracy".
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
    show: bool = True,
) -> FewShotResult:
    """Meta-trains an agent, and what networks start from, on the training characters.

    Args:
      data: The characters; those for tests are not touched.
      config: The constants.
      seed: Of everything random.
      folder: Where to keep checkpoints; a training that was interrupted goes on from the last.
      show: Whether to show progress.

    Returns:
      The best agent and initial parameters by validation.

    Raises:
      ValueError: `folder` holds another training.
    """
    identity = {"config": repr(config), "characters": data.name, "seed": seed}
    place_of_all = None if folder is None else pathlib.Path(folder)
    if place_of_all is not None:
        ended = _read_result(place_of_all, identity)
        if ended is not None:
            return ended
    agent, start = _first_agent(config), Initialization()
    episodes_done, steps_done = 0, 0.0
    history: list[dict[str, Any]] = []
    best: FewShotResult | None = None

    def place(part: str, turn: int) -> pathlib.Path | None:
        return None if place_of_all is None else place_of_all / f"{turn}-{part}"

    def family(characters: Any, turned: bool = False) -> Family:
        return episode_family(
            characters,
            config.protocol,
            width=config.width,
            initial_params=start.params,
            rate_factors=start.rate_factors,
            turned=turned,
        )

    def judge(part: str, turn: int) -> None:
        nonlocal best
        accuracy = validation_accuracy(
            family(data.validation), frozen(agent, config.num_steps, start.rate_factors), config
        )
        history.append(
            {
                "turn": turn,
                "part": part,
                "episodes": episodes_done,
                "env_steps": steps_done,
                "accuracy": accuracy,
            }
        )
        # Where initial parameters are to be learned, none are no answer.
        counts = start.params is not None or not config.turns
        if counts and (best is None or accuracy > best.accuracy):
            best = FewShotResult(agent, start, accuracy, history)

    def learn_initialization(part: str, turn: int, optimizer: optax.GradientTransformation) -> None:
        nonlocal start, episodes_done, steps_done
        name = f"initial parameters, {part} {turn + 1}"
        learning = initialization_config(config)
        learned = maml.train_initialization(
            maml.Families(family(data.training, turned=True), family(data.validation)),
            _with_factors(optimizer, start.rate_factors, config, name),
            learning,
            seed=seed + turn + (part == "initialization"),
            folder=place(part, turn),
            show=show,
        )
        start = _initialization(learned.learned)
        episodes_done += learning.episodes
        steps_done += float(learning.episodes * learning.num_steps)
        judge(part, turn)

    judge("start", 0)
    if config.turns and config.descent is not None:
        learn_initialization("descent", 0, optax.sgd(config.descent))
    for turn in range(max(config.turns, 1)):
        if config.turns:
            learn_initialization("initialization", turn, _through(agent, config))
        meta_config = config.meta_config
        trained = meta_train(
            {config.protocol.name: family(data.training, turned=True)},
            validation={config.protocol.name: family(data.validation)},
            schedule=Schedule(
                num_rounds=config.rounds,
                validate_every=max(config.rounds // 6, 1),
                checkpoint_every=10,
                validation_horizons=(config.num_steps,),
            ),
            config=meta_config,
            method=ppo(meta_config, agent),
            seed=seed + turn,
            options=RunOptions(folder=place("agent", turn), show_progress=show),
        )
        agent = trained.last_agent
        members = meta_config.groups * meta_config.copies
        episodes_done += config.rounds * members
        steps_done += float(trained.history[-1]["env_steps"])
        judge("agent", turn)
    assert best is not None
    if place_of_all is not None:
        _write_result(place_of_all, best, identity)
    return best


def _write_result(folder: pathlib.Path, result: FewShotResult, identity: Mapping[str, Any]) -> None:
    """Leaves what came out in the folder, so that who wants it again need not train or judge."""
    folder.mkdir(parents=True, exist_ok=True)
    agent_lib.save_agent(folder / _AGENT, result.agent)
    if result.initialization.params is not None:
        save_initialization(folder / _INITIALIZATION, result.initialization)
    described = {"accuracy": result.accuracy, "history": result.history}
    run_folder.write_result(folder, identity, described)


def _read_result(folder: pathlib.Path, identity: Mapping[str, Any]) -> FewShotResult | None:
    described = run_folder.read_result(folder, identity)
    if described is None:
        return None
    path = folder / _INITIALIZATION
    start = load_initialization(path) if path.exists() else Initialization()
    return FewShotResult(agent_lib.load_agent(folder / _AGENT), start, **described)


def frozen(
    agent: agent_lib.Agent, num_steps: int, rate_factors: chex.ArrayTree | None = None
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a meta-test: the agent acts and does not learn.

    Args:
      agent: The agent.
      num_steps: Of the training; it is told.
      rate_factors: As in `Initialization`.

    Example:
      >>> from alphaopt_jax import load_agent
      >>> tx = frozen(load_agent("base"), num_steps=100)
    """
    tx = transform.alphaopt(agent=agent, learn=False, num_steps=num_steps)
    return tx if rate_factors is None else optax.chain(tx, scale_by_factors(rate_factors))


def _first_agent(config: FewShotConfig) -> agent_lib.Agent:
    """The agent to go on from. What its rates are for it may have to learn anew."""
    agent = agent_lib.load_agent(config.start)
    return dataclasses.replace(agent, direction=config.meta.optimizer.direction)


def _through(agent: agent_lib.Agent, config: FewShotConfig) -> optax.GradientTransformation:
    """What trains while initial parameters are learned in a turn."""
    tx = frozen(agent, config.num_steps)
    return with_given_rates(tx) if config.initialization == "maml" else tx


def _with_factors(
    optimizer: optax.GradientTransformation,
    rate_factors: chex.ArrayTree | None,
    config: FewShotConfig,
    name: str,
) -> maml.InnerOptimizer:
    """The optimizer with factors of its updates to learn, and the factors to start from."""
    if config.initialization != "maml":
        return maml.InnerOptimizer(name, lambda _: optimizer)

    def optimizer_fn(factors: chex.ArrayTree) -> optax.GradientTransformation:
        return optax.chain(optimizer, scale_by_factors(optax.tree.scale(1.0 / _UNIT, factors)))

    def init(params: chex.ArrayTree) -> chex.ArrayTree:
        ones = optax.tree.ones_like(params)
        return optax.tree.scale(_UNIT, ones if rate_factors is None else rate_factors)

    return maml.InnerOptimizer(name, optimizer_fn, init)


def _initialization(learned: maml.Learned) -> Initialization:
    """What was learned, at its own size."""
    factors = optax.tree.scale(1.0 / _UNIT, learned.optimizer_params)
    return Initialization(learned.params, factors if jax.tree.leaves(factors) else None)


def initialization_config(config: FewShotConfig) -> maml.InitializationConfig:
    """Constants of the initial parameters' learning, each time.

    Example:
      >>> from alphaopt_jax.meta import few_shot_recipes
      >>> initialization_config(few_shot_recipes.CONFIGS["omniglot-learned"]).algorithm
      'maml'
    """
    at_once, number = config.initialization_at_once, config.initialization_episodes
    return maml.InitializationConfig(
        config.initialization,
        min(config.initialization_steps, config.num_steps),
        episodes=number,
        meta_batch_size=at_once,
        learning_rate=config.initialization_rate,
        validate_every=max(number // (10 * at_once), 1) * at_once,
        validation_episodes=config.validation_episodes,
    )


def with_given_rates(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Descends at an agent's rates, which count as constants where this is differentiated.

    Rates are what reinforcement teaches; initial parameters learn from what gradients do.

    Args:
      optimizer: A frozen agent whose rates multiply the gradient.

    Returns:
      An optimizer that makes the same steps.
    """
    tx = optax.with_extra_args_support(optimizer)

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        seen, at, more = jax.lax.stop_gradient((updates, params, extra))
        _, state = tx.update(seen, state, at, **more)
        rates = inspection.learning_rates(state, at)
        return jax.tree.map(lambda rate, grad: -rate * grad, rates, updates), state

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def validation_accuracy(
    family: Family, optimizer: optax.GradientTransformation, config: FewShotConfig
) -> float:
    """Share of queries told right after training, on fixed episodes.

    Args:
      family: Of `EpisodeTask`s.
      optimizer: As of `frozen`.
      config: Says how many episodes, and of how many steps.
    """
    keys = jax.random.split(jax.random.key(_VALIDATION_KEY), config.validation_episodes)
    evaluate = _inner_loop.make_evaluate(family, lambda _: optimizer, config.num_steps)
    nothing = maml.Learned(None, {})
    accuracy, _ = jax.jit(evaluate)(nothing, *rollouts.draw(family, keys))
    return float(accuracy)
