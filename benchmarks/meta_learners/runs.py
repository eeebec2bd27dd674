"""Training runs of `benchmarks.meta_learners`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from alphaopt_jax.meta import RunOptions, Schedule, meta_train
from alphaopt_jax.tasks.families import distribution
from benchmarks.meta_learners.methods import MetaLearner, Setting

TRAINED = ("linear_regression", "mixture_relu", "digits_tanh")
VALIDATED = ("wide_linear_regression", "wide_mixture_sigmoid", "deep_mixture_tanh")
_SELECTION_SEED = 100
_VALIDATIONS = 15


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run with V validations.

    Attributes:
      method: Name of the method.
      setting: Its setting.
      seed: Its seed.
      env_steps: `float[V]`, environment steps before each validation, over all tasks.
      seconds: `float[V]`, seconds of training before each, without compilation and validation.
      scores: `float[V]`, mean log of final over initial loss on the validation families.
    """

    method: str
    setting: Setting
    seed: int
    env_steps: np.ndarray
    seconds: np.ndarray
    scores: np.ndarray


def train(learner: MetaLearner, setting: Setting, seed: int, episodes: int, folder: Path) -> Run:
    """Trains once, or resumes the run in `folder`.

    Args:
      learner: The method.
      setting: Its setting.
      seed: Seed of all randomness.
      episodes: Episodes per environment; the number of rounds if a round is a whole episode.
      folder: Folder with one folder per run.
    """
    training, validation = distribution.training_families(), distribution.validation_families()
    config, method = learner.build(setting)
    rounds = episodes * learner.rounds_per_episode
    schedule = Schedule(
        num_rounds=rounds,
        validate_every=max(rounds // _VALIDATIONS, 1),
        checkpoint_every=max(rounds // 3, 1),
        validation_horizons=(200,),
        validation_tasks=8,
    )
    print(f"{learner.name}, {setting}, seed {seed}, {rounds} rounds", flush=True)
    name = f"{learner.slug}-{setting.learning_rate:g}-{setting.noise_std:g}-{rounds}-{seed}"
    result = meta_train(
        {family: training[family] for family in TRAINED},
        validation={family: validation[family] for family in VALIDATED},
        schedule=schedule,
        config=config,
        method=method,
        seed=seed,
        options=RunOptions(folder=folder / name),
    )
    env_steps, seconds, scores = (
        np.array([entry[column] for entry in result.history])
        for column in ("env_steps", "seconds", "score")
    )
    return Run(learner.name, setting, seed, env_steps, seconds, scores)


def choose(learner: MetaLearner, episodes: int, folder: Path) -> Setting:
    """The setting with the best final score on a separate seed."""
    candidates = [
        train(learner, setting, _SELECTION_SEED, episodes, folder) for setting in learner.settings
    ]
    return min(candidates, key=lambda run: run.scores[-1]).setting
