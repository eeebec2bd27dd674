"""Meta-training of `benchmarks.omniglot`: initial parameters of the literature, and AlphaOpt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from alphaopt_jax._storage import digests, run_folder
from alphaopt_jax._storage import params as params_lib
from alphaopt_jax.baselines import maml
from alphaopt_jax.meta.few_shot import FewShotConfig, FewShotResult, recipes, train_few_shot
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.omniglot.characters import Omniglot
from alphaopt_jax.tasks.omniglot.episodes import episode_family, few_shot_protocol

# Names in stored files.
_LEARNED, _KIND = "learned.safetensors", "omniglot-rival"
_OPTIMIZER_PARAMS = "made_of"

SINGLE_RATE = 0.1
"""Learning rate of the baselines' inner gradient descent; Meta-SGD starts from it."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Meta-training and meta-test of one protocol.

    Attributes:
      ours: Meta-training of AlphaOpt together with initial parameters. The baselines learn from the
        same number of episodes and through the same number of their steps.
      alone: Meta-training of AlphaOpt without initial parameters.
      test_episodes: Episodes of the meta-test.
      longer: Steps of a longer meta-test; 0 for none.
    """

    ours: FewShotConfig
    alone: FewShotConfig
    test_episodes: int = 600
    longer: int = 0

    @property
    def evaluate_every(self) -> int:
        """Steps between two evaluations on the queries."""
        return max(self.ours.num_steps // 10, 5)

    @property
    def episodes(self) -> int:
        """Total number of episodes from which initial parameters are learned."""
        return self.ours.total_episodes


def _few_shot_plan(ways: int, shots: int, *, updates: int, batch_size: int) -> Plan:
    """The initial parameters are updated `updates` times, half of them through gradient descent."""
    ours = dataclasses.replace(
        recipes.CONFIGS[recipes.LEARNED],
        protocol=few_shot_protocol(ways, shots),
        num_steps=10,
        width=64,
        initialization_episodes=updates // 2 * batch_size,
        initialization_batch_size=batch_size,
        initialization_steps=5,
    )
    return Plan(ours, ours.without_initialization())


PLANS: Mapping[str, Plan] = {
    plan.ours.protocol.name: plan
    for plan in (
        Plan(
            recipes.CONFIGS[recipes.LEARNED],
            recipes.CONFIGS[recipes.RANDOM],
            longer=500,
        ),
        _few_shot_plan(5, 1, updates=2400, batch_size=32),
        _few_shot_plan(5, 5, updates=2200, batch_size=16),
        _few_shot_plan(20, 1, updates=2000, batch_size=16),
        _few_shot_plan(20, 5, updates=1600, batch_size=8),
    )
}
"""Plans by the protocol's name; the first is the main one."""


def quick_plans() -> dict[str, Plan]:
    """The main plan, with few episodes and steps."""
    name, plan = next(iter(PLANS.items()))
    ours = dataclasses.replace(
        plan.ours,
        num_steps=20,
        width=8,
        initialization_episodes=20,
        initialization_steps=3,
        rounds=2,
        validation_episodes=4,
    )
    alone = ours.without_initialization()
    return {name: dataclasses.replace(plan, ours=ours, alone=alone, test_episodes=6, longer=40)}


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A method that learns initial parameters.

    Attributes:
      name: Name in tables.
      algorithm: As in `InitializationConfig`.
      optimizer_fn: Maps the inner optimizer's parameters to the inner optimizer.
      init: Maps initial parameters of the network to those of the inner optimizer.
      learns_rates: True if the meta-test uses the learned rates instead of tuned optimizers.
    """

    name: str
    algorithm: maml.Algorithm
    optimizer_fn: rollouts.OptimizerFactory = lambda params: optax.sgd(SINGLE_RATE)
    init: Callable[[chex.ArrayTree], chex.ArrayTree] = lambda params: {}
    learns_rates: bool = False


BASELINES = (
    Baseline("Reptile", "reptile"),
    Baseline("first-order MAML", "fomaml"),
    Baseline("MAML", "maml"),
    Baseline(
        "Meta-SGD",
        "maml",
        maml.scale_by_rates,
        lambda params: jax.tree.map(lambda leaf: jnp.full_like(leaf, SINGLE_RATE), params),
        learns_rates=True,
    ),
)


def learn_baseline(
    baseline: Baseline, plan: Plan, data: Omniglot, folder: Path
) -> maml.InitializationResult:
    """Learns initial parameters, or reads the stored result.

    Args:
      baseline: The method.
      plan: The protocol's plan.
      data: The characters.
      folder: Folder of all meta-training; an interrupted run continues, and the result is stored in
        two small files.
    """
    ours = plan.ours
    # Reptile moves by a share of the way; the others make steps of Adam.
    rate = 0.5 if baseline.algorithm == "reptile" else ours.initialization_learning_rate
    config = dataclasses.replace(
        ours.initialization_config,
        algorithm=baseline.algorithm,
        episodes=plan.episodes,
        learning_rate=rate,
    )
    place = folder / f"{slug(ours.protocol.name)}-{slug(baseline.name)}"
    identity = {
        "config": digests.digest(digests.constants(config)),
        "width": ours.width,
        "characters": data.name,
    }
    stored = _read_baseline(place, identity)
    if stored is not None:
        return stored
    name = f"{baseline.name}, {ours.protocol.name}"
    result = maml.train_initialization(
        maml.Families(
            episode_family(data.training, ours.protocol, width=ours.width, turned=True),
            episode_family(data.validation, ours.protocol, width=ours.width),
        ),
        maml.InnerOptimizer(name, baseline.optimizer_fn, baseline.init),
        config,
        folder=place,
    )
    place.mkdir(parents=True, exist_ok=True)
    trees = {"params": result.learned.params, _OPTIMIZER_PARAMS: result.learned.optimizer_params}
    params_lib.write_params(place / _LEARNED, trees, kind=_KIND, metadata={})
    run_folder.write_result(
        place, identity, {"accuracy": result.accuracy, "history": result.history}
    )
    return result


def _read_baseline(place: Path, identity: Mapping[str, Any]) -> maml.InitializationResult | None:
    described = run_folder.read_result(place, identity)
    if described is None:
        return None
    trees, _ = params_lib.read_params(
        place / _LEARNED, kind=_KIND, what="learned initial parameters", written_by=__name__
    )
    learned = maml.Learned(trees["params"], trees.get(_OPTIMIZER_PARAMS, {}))
    return maml.InitializationResult(learned, **described)


def learn_agent(plan: Plan, data: Omniglot, folder: Path, *, initialization: bool) -> FewShotResult:
    """Meta-trains AlphaOpt, with or without initial parameters, or reads the stored result."""
    config = plan.ours if initialization else plan.alone
    kind = "learned" if initialization else "random"
    place = folder / f"{slug(plan.ours.protocol.name)}-alphaopt-{kind}"
    return train_few_shot(data, config, folder=place)


def slug(name: str) -> str:
    """A name as part of a file's name.

    Example:
      >>> slug("20-way, multi-shot")
      '20-way_multi-shot'
    """
    return name.lower().replace(",", "").replace(" ", "_")
