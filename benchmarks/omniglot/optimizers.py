"""The optimizers that `benchmarks.omniglot` compares, each from several initial parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any

import optax

import alphaopt_jax as alphaopt
from alphaopt_jax.baselines import maml
from alphaopt_jax.config import pretrained_config
from alphaopt_jax.meta.few_shot import frozen_optimizer
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.omniglot.characters import Omniglot
from benchmarks.common import versions
from benchmarks.omniglot import learning

ADAM, SGD, LEARNED_RATES = "Adam", "SGD", "learned rates"
PRETRAINED, OWN = "AlphaOpt", "AlphaOpt, meta-trained on Omniglot"
RANDOM, LEARNED = "random", "learned with AlphaOpt"
RATES: Mapping[str, tuple[float, ...]] = {
    SGD: (0.01, 0.03, 0.1, 0.3, 1.0),
    ADAM: (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
}
_OPTIMIZER_FNS: Mapping[str, rollouts.OptimizerFactory] = {
    SGD: lambda rate: optax.sgd(rate),
    ADAM: lambda rate: optax.adam(rate),
}


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer with the initial parameters of the network.

    Attributes:
      start: Source of the initial parameters.
      optimizer: Name of the optimizer.
      optimizer_fn: Maps the optimizer's parameters to the optimizer.
      candidates: The optimizer's parameters: a learning rate, or learned arrays. The best of
        several candidates is chosen on validation alphabets.
      initial_params: Initial parameters of the network; None for random ones.
      version: Version of AlphaOpt, whose agent must not change in a meta-test; None for all other
        optimizers.
      longer_fn: As `optimizer_fn`, for the longer meta-test; None if it is the same.
    """

    start: str
    optimizer: str
    optimizer_fn: rollouts.OptimizerFactory
    candidates: Sequence[Any] = (0,)
    initial_params: Any = None
    version: str | None = None
    longer_fn: rollouts.OptimizerFactory | None = None


def all_optimizers(
    plan: learning.Plan, data: Omniglot, folder: Path
) -> tuple[list[OptimizerSpec], dict[str, Any]]:
    """Meta-trains whatever is not stored yet.

    Args:
      plan: The protocol's plan.
      data: The characters.
      folder: Folder of all meta-training.

    Returns:
      All optimizers, and the history of every meta-training by its name.
    """
    tuned = [(name, _OPTIMIZER_FNS[name], RATES[name]) for name in (SGD, ADAM)]
    histories: dict[str, Any] = {}
    specs = [OptimizerSpec(RANDOM, *each) for each in tuned]
    pretrained = alphaopt.load_agent("diagonal")
    of_agent = _AgentSpecs(plan)
    specs.append(of_agent.spec(RANDOM, PRETRAINED, pretrained))
    for baseline in learning.BASELINES:
        result = learning.learn_baseline(baseline, plan, data, folder)
        histories[baseline.name] = result.history
        params, rates = result.learned.params, result.learned.optimizer_params
        if baseline.learns_rates:
            specs.append(
                OptimizerSpec(baseline.name, LEARNED_RATES, maml.scale_by_rates, [rates], params)
            )
        else:
            specs += [OptimizerSpec(baseline.name, *each, params) for each in tuned]
    for initialization, start in ((False, RANDOM), (True, LEARNED)):
        learned = learning.learn_agent(plan, data, folder, initialization=initialization)
        histories[f"{OWN}, {start}"] = learned.history
        params, factors = learned.initialization
        if initialization:
            specs += [OptimizerSpec(start, *each, params) for each in tuned]
            specs.append(of_agent.spec(start, PRETRAINED, pretrained, params))
        specs.append(of_agent.spec(start, OWN, learned.agent, params, factors))
    return specs, histories


class _AgentSpecs:
    """Specs of frozen agents; those with the same update direction share compiled programs."""

    def __init__(self, plan: learning.Plan):
        self._plan = plan
        self._optimizer_fns: dict[Any, rollouts.OptimizerFactory] = {}

    def spec(
        self,
        start: str,
        name: str,
        agent: alphaopt.Agent,
        params: Any = None,
        rate_factors: Any = None,
    ) -> OptimizerSpec:
        optimizer_fn, longer_fn = (
            self._optimizer_fns.setdefault(
                (agent.update_direction, num_steps), _frozen_agent_fn(agent, num_steps)
            )
            for num_steps in (self._plan.ours.num_steps, self._plan.longer)
        )
        return OptimizerSpec(
            start,
            name,
            optimizer_fn,
            [(dict(agent.params), rate_factors)],
            params,
            version=versions.optimizer_version(agent, pretrained_config()),
            longer_fn=longer_fn,
        )


def _frozen_agent_fn(like: alphaopt.Agent, num_steps: int) -> rollouts.OptimizerFactory:
    """Maps an agent's parameters and factors of its rates to AlphaOpt with `num_steps`."""

    def optimizer_fn(optimizer_params: tuple[Any, Any]) -> optax.GradientTransformation:
        params, rate_factors = optimizer_params
        return frozen_optimizer(dataclasses.replace(like, params=params), num_steps, rate_factors)

    return optimizer_fn
