"""The runs of `benchmarks.omniglot`: meta-tests, each stored in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from alphaopt_jax._optimizer import state as state_lib
from alphaopt_jax._storage import digests
from alphaopt_jax.meta.few_shot import Curves, Learner, MetaTestPlan, meta_test
from alphaopt_jax.tasks.omniglot.characters import Omniglot
from alphaopt_jax.tasks.omniglot.episodes import episode_family
from alphaopt_jax.tasks.task import Family
from benchmarks.common.run_store import load_or_measure
from benchmarks.omniglot.learning import Plan, slug
from benchmarks.omniglot.optimizers import LEARNED, RANDOM, OptimizerSpec

_TUNING_KEY, TEST_KEY = 900, 1000
_EPISODES_PER_CALL = 20


@dataclasses.dataclass(frozen=True)
class Run:
    """Meta-test of one optimizer.

    Attributes:
      spec: The optimizer.
      chosen: The chosen candidate; None if there was only one.
      curves: Curves over the planned number of steps.
      longer: Curves over more steps; None unless the start is random or learned with AlphaOpt.
    """

    spec: OptimizerSpec
    chosen: Any
    curves: Curves
    longer: Curves | None


def run_all(
    specs: Sequence[OptimizerSpec],
    plan: Plan,
    data: Omniglot,
    folder: Path,
    on_progress: Callable[[str], None],
) -> list[Run]:
    """Chooses candidates on validation alphabets and meta-tests on evaluation alphabets.

    Args:
      specs: The optimizers. Those with the same `optimizer_fn` share compiled programs.
      plan: The protocol's plan.
      data: The characters.
      folder: Folder of the stored runs; a meta-test that was interrupted continues there.
      on_progress: Called with the name of each optimizer after its meta-test.
    """
    families = tuple(
        episode_family(characters, plan.ours.protocol, width=plan.ours.width)
        for characters in (data.validation, data.test)
    )
    runs = []
    for spec in specs:
        path = folder / f"{name_of(spec, plan, data.name)}.npz"
        arrays = load_or_measure(path, lambda spec=spec: _measure(spec, plan, *families))
        chosen = spec.candidates[int(arrays["chosen"])]
        curves = _curves("", arrays)
        longer = _curves("longer_", arrays) if "longer_steps" in arrays else None
        on_progress(f"{plan.ours.protocol.name}: {spec.optimizer}, {spec.start} start")
        runs.append(Run(spec, chosen if len(spec.candidates) > 1 else None, curves, longer))
    return runs


def name_of(spec: OptimizerSpec, plan: Plan, characters: str) -> str:
    """Name of a stored run: its optimizer, and a digest of all that the result depends on.

    The learned parameters count, but not the meta-training that they come from.
    """
    ours = plan.ours
    described = {
        "test": digests.constants(
            (ours.protocol, ours.width, ours.num_steps, ours.validation_episodes)
        ),
        "lengths": [plan.test_episodes, plan.longer, plan.evaluate_every],
        "names": [characters, spec.start, spec.optimizer],
        "version": spec.version,
        "arrays": (list(spec.candidates), spec.initial_params),
    }
    parts = (ours.protocol.name, spec.start, spec.optimizer)
    return "-".join([*(slug(part) for part in parts), digests.digest(described)])


def _measure(
    spec: OptimizerSpec, plan: Plan, validation: Family, evaluation: Family
) -> dict[str, np.ndarray]:
    num_steps = plan.ours.num_steps
    chosen = 0
    if len(spec.candidates) > 1:
        accuracies = [
            _meta_test(
                spec, plan, candidate, _Test(validation, _TUNING_KEY, plan.ours.validation_episodes)
            ).accuracy(num_steps)
            for candidate in spec.candidates
        ]
        chosen = int(np.argmax([each.mean() for each in accuracies]))
    candidate = spec.candidates[chosen]
    test = _Test(evaluation, TEST_KEY, plan.test_episodes)
    arrays = {
        "chosen": np.array(chosen),
        **_arrays("", _meta_test(spec, plan, candidate, test)),
    }
    if plan.longer and spec.start in (RANDOM, LEARNED):
        longer = dataclasses.replace(test, num_episodes=max(plan.test_episodes // 10, 2))
        arrays |= _arrays("longer_", _meta_test(spec, plan, candidate, longer, plan.longer))
    return arrays


@dataclasses.dataclass(frozen=True)
class _Test:
    """Episodes of a meta-test."""

    family: Family
    seed: int
    num_episodes: int


def _meta_test(
    spec: OptimizerSpec, plan: Plan, candidate: Any, test: _Test, num_steps: int | None = None
) -> Curves:
    """Meta-tests one candidate, by default over the planned number of steps."""
    steps = plan.ours.num_steps if num_steps is None else num_steps
    longer_fn = spec.longer_fn if steps > plan.ours.num_steps else None
    learner = Learner(
        longer_fn or spec.optimizer_fn,
        candidate,
        spec.initial_params,
        constant_state=None if spec.version is None else _agent_in,
    )
    evaluate_every = plan.evaluate_every * (steps // plan.ours.num_steps)
    episodes_per_call = min(test.num_episodes, _EPISODES_PER_CALL)
    test_plan = MetaTestPlan(test.num_episodes, steps, evaluate_every, episodes_per_call)
    return meta_test(test.family, learner, test_plan, jax.random.key(test.seed))


def _agent_in(state: optax.OptState) -> Any:
    return state_lib.find(state).agent


def _arrays(prefix: str, curves: Curves) -> dict[str, np.ndarray]:
    return {f"{prefix}{name}": np.asarray(each) for name, each in curves._asdict().items()}


def _curves(prefix: str, arrays: Mapping[str, np.ndarray]) -> Curves:
    steps, accuracies, losses = (arrays[f"{prefix}{name}"] for name in Curves._fields)
    return Curves(tuple(int(step) for step in steps), accuracies, losses)
