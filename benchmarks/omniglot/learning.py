"""What `benchmarks.omniglot` meta-trains: the literature's initial parameters, and AlphaOpt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from alphaopt_jax._storage import params as params_lib
from alphaopt_jax._storage import run_folder
from alphaopt_jax.baselines import maml
from alphaopt_jax.meta.few_shot import FewShotConfig, FewShotResult, recipes, train_few_shot
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.omniglot.characters import Omniglot
from alphaopt_jax.tasks.omniglot.episodes import episode_family, few_shot_protocol

_LEARNED, _KIND = "learned.safetensors", "omniglot-rival"
_OPTIMIZER_PARAMS = "made_of"  # Key in stored files.
SINGLE_RATE = 0.1
"""Of the gradient descent that rivals learn through; where they learn rates, it is the first."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a protocol is learned and tested.

    Attributes:
      ours: How AlphaOpt learns, with initial parameters. Its rivals learn from as many episodes,
        through as many steps of them.
      alone: How it learns without initial parameters.
      test_episodes: Of the meta-test.
      longer: Steps of a longer meta-test, or 0 for none.
    """

    ours: FewShotConfig
    alone: FewShotConfig
    test_episodes: int = 600
    longer: int = 0

    @property
    def looks(self) -> int:
        """Updates between two looks at the queries."""
        return max(self.ours.num_steps // 10, 5)

    @property
    def episodes(self) -> int:
        """That initial parameters learn from, in all."""
        return self.ours.total_episodes


def _few_shot_plan(ways: int, shots: int, *, moves: int, at_once: int) -> Plan:
    """Initial parameters are moved so often in all, half of that through descent."""
    ours = dataclasses.replace(
        recipes.CONFIGS[recipes.LEARNED],
        protocol=few_shot_protocol(ways, shots),
        num_steps=10,
        width=64,
        initialization_episodes=moves // 2 * at_once,
        initialization_batch_size=at_once,
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
        _few_shot_plan(5, 1, moves=2400, at_once=32),
        _few_shot_plan(5, 5, moves=2200, at_once=16),
        _few_shot_plan(20, 1, moves=2000, at_once=16),
        _few_shot_plan(20, 5, moves=1600, at_once=8),
    )
}
"""By the protocol's name; the first is the main one."""


@dataclasses.dataclass(frozen=True)
class Rival:
    """A way to learn initial parameters.

    Attributes:
      name: What tables call it.
      algorithm: As in `InitializationConfig`.
      optimizer_fn: From the inner optimizer's parameters to the inner optimizer.
      init: From initial parameters of the network to those of the inner optimizer.
      learns_rates: Whether it is tested with the rates that it learned, and not with tuned ones.
    """

    name: str
    algorithm: maml.Algorithm
    optimizer_fn: rollouts.OptimizerFactory = lambda params: optax.sgd(SINGLE_RATE)
    init: Callable[[chex.ArrayTree], chex.ArrayTree] = lambda params: {}
    learns_rates: bool = False


RIVALS = (
    Rival("Reptile", "reptile"),
    Rival("first-order MAML", "fomaml"),
    Rival("MAML", "maml"),
    Rival(
        "Meta-SGD",
        "maml",
        maml.scale_by_rates,
        lambda params: jax.tree.map(lambda leaf: jnp.full_like(leaf, SINGLE_RATE), params),
        learns_rates=True,
    ),
)


def learn_rival(
    rival: Rival, plan: Plan, data: Omniglot, folder: Path
) -> maml.InitializationResult:
    """Learns initial parameters, or goes on with what is in `folder`.

    What came out stays there in two small files, which are all that is needed to have it again.
    """
    ours = plan.ours
    # Reptile's moves are shares of a way, those of the others Adam's steps.
    rate = 0.5 if rival.algorithm == "reptile" else ours.initialization_learning_rate
    config = dataclasses.replace(
        ours.initialization_config,
        algorithm=rival.algorithm,
        episodes=plan.episodes,
        learning_rate=rate,
    )
    place = folder / f"{_slug(ours.protocol.name)}-{_slug(rival.name)}"
    identity = {"config": repr(config), "width": ours.width, "characters": data.name}
    ended = _read_rival(place, identity)
    if ended is not None:
        return ended
    result = maml.train_initialization(
        maml.Families(
            episode_family(data.training, ours.protocol, width=ours.width, turned=True),
            episode_family(data.validation, ours.protocol, width=ours.width),
        ),
        maml.InnerOptimizer(f"{rival.name}, {ours.protocol.name}", rival.optimizer_fn, rival.init),
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


def _read_rival(place: Path, identity: Mapping[str, Any]) -> maml.InitializationResult | None:
    described = run_folder.read_result(place, identity)
    if described is None:
        return None
    trees, _ = params_lib.read_params(
        place / _LEARNED, kind=_KIND, what="what a rival learned", written_by=__name__
    )
    learned = maml.Learned(trees["params"], trees.get(_OPTIMIZER_PARAMS, {}))
    return maml.InitializationResult(learned, **described)


def learn_agent(plan: Plan, data: Omniglot, folder: Path, *, initialization: bool) -> FewShotResult:
    """Meta-trains AlphaOpt, with or without initial parameters, or reads what was trained."""
    config = plan.ours if initialization else plan.alone
    kind = "learned" if initialization else "random"
    place = folder / f"{_slug(plan.ours.protocol.name)}-alphaopt-{kind}"
    return train_few_shot(data, config, folder=place)


def _slug(name: str) -> str:
    return name.lower().replace(",", "").replace(" ", "_")
