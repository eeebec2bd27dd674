"""Who takes part in `benchmarks.omniglot`: every optimizer from everywhere to start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import hashlib
import io
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import alphaopt_jax as alphaopt
from alphaopt_jax._optimizer import state as state_lib
from alphaopt_jax._storage import atomic
from alphaopt_jax.baselines import maml
from alphaopt_jax.config import adaptive_config
from alphaopt_jax.meta.few_shot import Curves, Learner, MetaTestPlan, frozen_optimizer, meta_test
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.omniglot.characters import Omniglot
from alphaopt_jax.tasks.omniglot.episodes import episode_family
from alphaopt_jax.tasks.task import Family
from benchmarks.omniglot import learning

ADAM, SGD = "Adam", "SGD"
GENERAL, OWN = "AlphaOpt, shipped", "AlphaOpt, meta-trained here"
RANDOM, LEARNED = "random", "learned with AlphaOpt"
RATES: Mapping[str, tuple[float, ...]] = {
    SGD: (0.01, 0.03, 0.1, 0.3, 1.0),
    ADAM: (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
}
_MAKERS: Mapping[str, rollouts.OptimizerFactory] = {
    SGD: lambda rate: optax.sgd(rate),
    ADAM: lambda rate: optax.adam(rate),
}
_TUNING_KEY, TEST_KEY = 900, 1000
_EPISODES_PER_CALL = 20


@dataclasses.dataclass(frozen=True)
class Contender:
    """An optimizer from somewhere to start.

    Attributes:
      start: Where initial parameters are from.
      optimizer: What trains from there.
      make: Makes it.
      made_of: What `make` is called with; where there are several, the best is chosen on validation
        alphabets.
      initial_params: Where networks start, or None.
      is_agent: Whether an agent is in the optimizer's state, which must not change.
      make_longer: Makes it for the longer meta-test, where that is another.
    """

    start: str
    optimizer: str
    make: rollouts.OptimizerFactory
    made_of: Sequence[Any] = (0,)
    initial_params: Any = None
    is_agent: bool = False
    make_longer: rollouts.OptimizerFactory | None = None


@dataclasses.dataclass(frozen=True)
class Tested:
    """A contender in the meta-test.

    Attributes:
      contender: Which.
      chosen: What it was made of, where there was a choice.
      curves: As trained for.
      longer: For more steps, or None; only from fresh networks and from where AlphaOpt starts.
    """

    contender: Contender
    chosen: Any
    curves: Curves
    longer: Curves | None


def contenders(
    plan: learning.Plan, data: Omniglot, folder: Path
) -> tuple[list[Contender], dict[str, Any]]:
    """Learns all that is to be learned.

    Returns:
      All contenders, and the course of every learning by its name.
    """
    tuned = [(name, _MAKERS[name], RATES[name]) for name in (SGD, ADAM)]
    histories: dict[str, Any] = {}
    found = [Contender(RANDOM, *each) for each in tuned]
    general = alphaopt.load_agent("base")
    makers: dict[Any, rollouts.OptimizerFactory] = {}

    def of_agent(
        start: str, name: str, agent: alphaopt.Agent, params: Any, rate_factors: Any = None
    ) -> Contender:
        # One program serves all agents whose rates multiply the same.
        make, longer = (
            makers.setdefault((agent.direction, steps), _agent_maker(agent, steps))
            for steps in (plan.ours.num_steps, plan.longer)
        )
        made_of = [(dict(agent.params), rate_factors)]
        return Contender(start, name, make, made_of, params, is_agent=True, make_longer=longer)

    found.append(of_agent(RANDOM, GENERAL, general, None))
    for rival in learning.RIVALS:
        result = learning.learn_rival(rival, plan, data, folder)
        histories[rival.name] = result.history
        params = result.learned.params
        if rival.learns_rates:
            rates = result.learned.optimizer_params
            found.append(Contender(rival.name, "its rates", maml.scale_by_rates, [rates], params))
        else:
            found += [Contender(rival.name, *each, params) for each in tuned]
    for kind, start in ((False, RANDOM), (True, LEARNED)):
        learned = learning.learn_agent(plan, data, folder, initialization=kind)
        histories[f"{OWN}, {start}"] = learned.history
        params, factors = learned.initialization
        if kind:
            found += [Contender(start, *each, params) for each in tuned]
            found.append(of_agent(start, GENERAL, general, params))
        found.append(of_agent(start, OWN, learned.agent, params, factors))
    return found, histories


def test(
    found: Sequence[Contender],
    plan: learning.Plan,
    data: Omniglot,
    folder: Path,
    tell: Callable[[str], None],
) -> list[Tested]:
    """Chooses what there is to choose on validation alphabets, and tests on evaluation alphabets.

    Args:
      found: The contenders. Those that are made alike share what is compiled.
      plan: Of the protocol.
      data: The characters.
      folder: Where what was measured is kept; a test that was interrupted goes on from there.
      tell: Called with what has been tested.
    """
    folder.mkdir(parents=True, exist_ok=True)
    validation, evaluation = (
        episode_family(characters, plan.ours.protocol, width=plan.ours.width)
        for characters in (data.validation, data.test)
    )

    def run(
        contender: Contender, made_of: Any, family: Family, key: int, number: int, steps: int
    ) -> Curves:
        longer = contender.make_longer if steps > plan.ours.num_steps else None
        learner = Learner(
            longer or contender.make,
            made_of,
            contender.initial_params,
            constant_state=_agent_in if contender.is_agent else None,
        )
        evaluate_every = plan.looks * (steps // plan.ours.num_steps)
        test_plan = MetaTestPlan(number, steps, evaluate_every, min(number, _EPISODES_PER_CALL))
        return meta_test(family, learner, test_plan, jax.random.key(key))

    def measure(contender: Contender) -> dict[str, Any]:
        chosen = 0
        if len(contender.made_of) > 1:
            tuning = validation, _TUNING_KEY, plan.ours.validation_episodes, plan.ours.num_steps
            scores = [
                run(contender, each, *tuning).accuracy(plan.ours.num_steps).mean()
                for each in contender.made_of
            ]
            chosen = int(np.argmax(scores))
        made_of = contender.made_of[chosen]
        curves = run(
            contender, made_of, evaluation, TEST_KEY, plan.test_episodes, plan.ours.num_steps
        )
        found = {"chosen": np.array(chosen), **_arrays("", curves)}
        if plan.longer and contender.start in (RANDOM, LEARNED):
            number = max(plan.test_episodes // 10, 2)
            longer = run(contender, made_of, evaluation, TEST_KEY, number, plan.longer)
            found |= _arrays("longer_", longer)
        return found

    def of_one(contender: Contender) -> Tested:
        path = folder / f"{_fingerprint(contender, plan, data)}.npz"
        if not path.exists():
            content = io.BytesIO()
            np.savez_compressed(content, **measure(contender))
            atomic.write(path, content.getvalue())
        with np.load(path, allow_pickle=False) as found:
            chosen = contender.made_of[int(found["chosen"])]
            curves = _curves("", found)
            longer = _curves("longer_", found) if "longer_steps" in found else None
        tell(f"{plan.ours.protocol.name}: {contender.optimizer}, {contender.start} start")
        return Tested(contender, chosen if len(contender.made_of) > 1 else None, curves, longer)

    return [of_one(contender) for contender in found]


def _arrays(prefix: str, curves: Curves) -> dict[str, Any]:
    return {f"{prefix}{name}": np.asarray(each) for name, each in curves._asdict().items()}


def _curves(prefix: str, found: Mapping[str, np.ndarray]) -> Curves:
    steps, accuracies, losses = (found[f"{prefix}{name}"] for name in Curves._fields)
    return Curves(tuple(int(step) for step in steps), accuracies, losses)


def _fingerprint(contender: Contender, plan: learning.Plan, data: Omniglot) -> str:
    """Tells a contender's meta-test from any other.

    How it learned does not count, only what came out; nor does the code that it was made with.
    """
    ours = plan.ours
    described = (
        (ours.protocol, ours.width, ours.num_steps, ours.validation_episodes),
        (plan.test_episodes, plan.longer, plan.looks),
        (data.name, contender.start, contender.optimizer, adaptive_config()),
    )
    digest = hashlib.sha256(repr(described).encode())
    for leaf in jax.tree.leaves((contender.made_of, contender.initial_params)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _agent_maker(like: alphaopt.Agent, num_steps: int) -> rollouts.OptimizerFactory:
    """Makes a frozen optimizer, which is told the number of steps.

    It is made of an agent's parameters and of factors of its rates.
    """

    def make(made_of: tuple[Any, Any]) -> optax.GradientTransformation:
        params, rate_factors = made_of
        return frozen_optimizer(dataclasses.replace(like, params=params), num_steps, rate_factors)

    return make


def _agent_in(state: optax.OptState) -> Any:
    return state_lib.find(state).agent
