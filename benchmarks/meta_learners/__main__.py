"""How to train an agent: PPO with divided and with shared reward, OpenAI-ES and persistent ES.

`python -m benchmarks.meta_learners` trains the same network over the same families by each method,
with the same number of environment steps, three seeds each, and validates all of them on the same
families, which none is trained on. Each method first gets the best of a few settings (how fast it
learns, how widely it explores), on a seed that is not reported and with half of the rounds. It
takes an hour or two on one core; runs are kept in `benchmarks/results/meta_learners_runs`, so that
it goes on where it was stopped. `--quick` is a matter of minutes and shows only that it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import functools
import itertools
from pathlib import Path
import shlex
import sys
from typing import Any

import numpy as np
import tyro

from alphaopt_jax import plotting
from alphaopt_jax.meta import MetaConfig, Method, RunOptions, Schedule, meta_train
from alphaopt_jax.meta.evolution import evolution
from alphaopt_jax.meta.ppo import ppo
from alphaopt_jax.tasks.families import distribution
from benchmarks.common import intervals, results

_FAMILIES = ("linear_regression", "mixture_relu", "digits_tanh")
_VALIDATION = ("wide_linear_regression", "wide_mixture_sigmoid", "deep_mixture_tanh")
_SELECTION_SEED = 100
_VALIDATIONS = 15
_TRUNCATED = 4  # Rollouts in an episode of the method that learns from parts of episodes.

# Every agent is told its horizon, since the validation tells it too.
_CONFIG = MetaConfig(max_horizon=300, unknown_horizon=0.0)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      seeds: Runs of each method.
      rounds: Rounds of each run.
      quick: Two rounds of one seed and one setting, to see that it runs.
    """

    seeds: int = 3
    rounds: int = 160
    quick: bool = False


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is chosen for each method.

    Attributes:
      learning_rate: Of the agent's own optimizer.
      exploration: Standard deviation of PPO's noise on the log rates, or of the noise that
        evolution adds to the agent's parameters.
    """

    learning_rate: float
    exploration: float


@dataclasses.dataclass(frozen=True)
class Contender:
    """A way to train an agent, as it enters the comparison.

    Attributes:
      name: What tables and pictures call it.
      make: From a setting to the constants of meta-training and the method.
      settings: What it may choose from.
      rounds_per_episode: Rounds in an episode; its rounds are as much shorter and more.
    """

    name: str
    make: Callable[[Setting], tuple[MetaConfig, Method]]
    settings: tuple[Setting, ...]
    rounds_per_episode: int = 1

    @property
    def slug(self) -> str:
        """The name as a part of a folder's."""
        return self.name.lower().replace(",", "").replace(" ", "_")


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
      method: Its name in table and picture.
      setting: What was chosen for it.
      seed: Its seed.
      env_steps: `float[V]`, steps made on all tasks together at each validation.
      seconds: `float[V]`, the same in seconds of training, compilation and validation left out.
      scores: `float[V]`, mean log of final over initial loss on the validation families.
    """

    method: str
    setting: Setting
    seed: int
    env_steps: np.ndarray
    seconds: np.ndarray
    scores: np.ndarray


def _by_ppo(setting: Setting, **more: Any) -> tuple[MetaConfig, Method]:
    config = dataclasses.replace(
        _CONFIG,
        learning_rate=setting.learning_rate,
        exploration=setting.exploration,
        leaf_exploration=setting.exploration,
        **more,
    )
    return config, ppo(config)


def _by_evolution(setting: Setting, *, strategy: Any, rollouts: int) -> tuple[MetaConfig, Method]:
    config = dataclasses.replace(
        _CONFIG,
        learning_rate=setting.learning_rate,
        rollout_length=_CONFIG.rollout_length // rollouts,
        rollouts_per_episode=rollouts,
    )
    return config, evolution(config, strategy, perturbation_std=setting.exploration)


def _grid(rates: Sequence[float], explorations: Sequence[float]) -> tuple[Setting, ...]:
    return tuple(Setting(*each) for each in itertools.product(rates, explorations))


# PPO's noise was seen to matter little, that of evolution matters.
_RATES = (1e-3, 3e-3, 1e-2)
_PPO_GRID = _grid(_RATES, (0.3,))
_EVOLUTION_GRID = _grid(_RATES, (0.02, 0.1))

DIVIDED, SHARED = "PPO, divided", "PPO, shared"
EVOLUTION, PERSISTENT = "OpenAI-ES", "persistent ES"

CONTENDERS = (
    Contender(DIVIDED, _by_ppo, _PPO_GRID),
    Contender(SHARED, functools.partial(_by_ppo, credit="shared"), _PPO_GRID),
    Contender(
        EVOLUTION,
        functools.partial(_by_evolution, strategy="openai_es", rollouts=1),
        _EVOLUTION_GRID,
    ),
    Contender(
        PERSISTENT,
        functools.partial(_by_evolution, strategy="persistent_es", rollouts=_TRUNCATED),
        _EVOLUTION_GRID,
        rounds_per_episode=_TRUNCATED,
    ),
)
"""What is compared; the network, the tasks and the environment are the same for all."""


def train(contender: Contender, setting: Setting, seed: int, episodes: int, folder: Path) -> Run:
    """Trains once, or goes on with what `folder` holds.

    Args:
      contender: How to train.
      setting: Its setting.
      seed: Its seed.
      episodes: Episodes of populations to train for, which is the number of rounds where each round
        is a whole episode.
      folder: Where runs are kept.
    """
    training, validation = distribution.training_families(), distribution.validation_families()
    config, method = contender.make(setting)
    rounds = episodes * contender.rounds_per_episode
    schedule = Schedule(
        num_rounds=rounds,
        validate_every=max(rounds // _VALIDATIONS, 1),
        checkpoint_every=max(rounds // 3, 1),
        validation_horizons=(200,),
        validation_tasks=8,
    )
    print(f"{contender.name}, {setting}, seed {seed}, {rounds} rounds", flush=True)
    name = f"{contender.slug}-{setting.learning_rate:g}-{setting.exploration:g}-{rounds}-{seed}"
    result = meta_train(
        {family: training[family] for family in _FAMILIES},
        validation={family: validation[family] for family in _VALIDATION},
        schedule=schedule,
        config=config,
        method=method,
        seed=seed,
        options=RunOptions(folder=folder / name),
    )
    columns = {
        column: np.array([entry[column] for entry in result.history])
        for column in ("env_steps", "seconds", "score")
    }
    env_steps, seconds, scores = columns.values()
    return Run(contender.name, setting, seed, env_steps, seconds, scores)


def choose(contender: Contender, episodes: int, folder: Path) -> Setting:
    """The setting with the best last score on a seed that is not reported."""
    runs = [
        train(contender, setting, _SELECTION_SEED, episodes, folder)
        for setting in contender.settings
    ]
    return min(runs, key=lambda run: run.scores[-1]).setting


def summarize(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row for each method: scores at the end, and after as much time as the quickest needs."""
    budget = min(run.seconds[-1] for run in runs)
    rows = []
    for name in dict.fromkeys(run.method for run in runs):
        mine = [run for run in runs if run.method == name]
        at_steps = np.array([run.scores[-1] for run in mine])
        at_time = np.array([np.interp(budget, run.seconds, run.scores) for run in mine])
        rows.append(
            {
                "method": name,
                "setting": _described(mine[0].setting),
                "start": float(np.mean([run.scores[0] for run in mine])),
                "score": float(at_steps.mean()),
                "interval": intervals.half_interval(at_steps),
                "score_at_equal_time": float(at_time.mean()),
                "interval_at_equal_time": intervals.half_interval(at_time),
                "env_steps": float(np.mean([run.env_steps[-1] for run in mine])),
                "seconds": float(np.mean([run.seconds[-1] for run in mine])),
                "curves": [
                    {
                        "seed": run.seed,
                        "env_steps": run.env_steps,
                        "seconds": run.seconds,
                        "scores": run.scores,
                    }
                    for run in mine
                ],
            }
        )
    return rows


def _described(setting: Setting) -> str:
    at_edge = setting.learning_rate in (min(_RATES), max(_RATES))
    return f"{setting.learning_rate:g}{' (edge)' if at_edge else ''}, {setting.exploration:g}"


def make_claims(rows: Sequence[dict[str, Any]]) -> list[results.Claim]:
    """What the comparison shows, if it shows anything: differences that the seeds agree on."""
    scores = {
        row["method"]: np.array([each["scores"][-1] for each in row["curves"]]) for row in rows
    }
    rivals = {"shared": SHARED, "openai_es": EVOLUTION, "persistent_es": PERSISTENT}
    claims = []
    for key, rival in rivals.items():
        difference = scores[DIVIDED] - scores[rival]
        claims.append(
            results.Claim(
                f"meta_learners.divided_to_{key}",
                f"score of {DIVIDED} less that of {rival}, at equal steps: upper end of the 95 %"
                " interval",
                float(difference.mean() + (intervals.half_interval(difference) or 0.0)),
                "< 0",
            )
        )
    return claims


COLUMNS = {
    "method": "method",
    "setting": "rate, exploration",
    "start": "score at the start",
    "score": "score at the end",
    "interval": "±",
    "score_at_equal_time": "after equal time",
    "interval_at_equal_time": "± ",
    "env_steps": "training steps on all tasks",
    "seconds": "seconds",
}


def markdown(rows: Sequence[dict[str, Any]], command: str) -> str:
    """The page beside the JSON file."""
    return (
        f"# Ways to train an agent\n\nMade by `{command}`.\n\nThe same network, tasks and"
        f" environment: trained on {', '.join(_FAMILIES)} with horizons of {_CONFIG.min_horizon} to"
        f" {_CONFIG.max_horizon} steps, validated frozen on {', '.join(_VALIDATION)} with 200"
        f" steps, {len(rows[0]['curves'])} seeds. Score: mean log of final over initial loss; lower"
        " is better. Intervals are Student's, of the mean over the seeds. Equal time is that of"
        " the quickest run, compilation and validation left out.\n\n"
        '"Divided": parameters within a leaf are rewarded each with its own part of the decrease of'
        " the log loss, leaves as a team with all of it; this is how the shipped agent is trained."
        ' "Shared": everyone with the decrease itself.'
        " OpenAI-ES learns when episodes end, persistent ES after each quarter of"
        f" one. Each method has the best of {len(_RATES)} learning rates of the agent's Adam, and"
        " evolution also of two deviations of the noise on the agent's parameters, chosen on"
        " another seed with half of the rounds by the same validation; (edge) marks a rate at the"
        " edge of what was tried."
        f"\n\n{results.markdown_table(rows, COLUMNS)}\n"
        "![By steps](meta_learners_env_steps.png)\n\n![By time](meta_learners_seconds.png)\n"
    )


def report(runs: Sequence[Run], command: str, folder: Path) -> Sequence[results.Claim]:
    """Prints the table, writes the files and the pictures; returns the claims."""
    rows = summarize(runs)
    print(results.markdown_table(rows, COLUMNS))
    seeds = sorted({run.seed for run in runs})
    claims = make_claims(rows) if len(seeds) > 1 else []
    results.write(
        "meta_learners", rows=rows, claims=claims, seeds=seeds, command=command, folder=folder
    )
    (folder / "meta_learners.md").write_text(markdown(rows, command))
    for file, x_label in (("env_steps", "millions of training steps"), ("seconds", "seconds")):
        scale = 1e6 if file == "env_steps" else 1.0
        names = dict.fromkeys(run.method for run in runs)
        figure = plotting.meta_training_figure(
            {name: np.stack([run.scores for run in runs if run.method == name]) for name in names},
            x={
                name: np.mean([getattr(run, file) for run in runs if run.method == name], axis=0)
                / scale
                for name in names
            },
            x_label=x_label,
            title="Ways to train an agent",
        )
        plotting.save_png(figure, folder / f"meta_learners_{file}.png")
    return claims


def main(arguments: Arguments) -> int:
    """Trains everything and reports; returns 0 if the claims hold."""
    episodes = 2 if arguments.quick else arguments.rounds
    seeds = range(1 if arguments.quick else arguments.seeds)
    folder = results.RESULTS / ("quick" if arguments.quick else "")
    runs_folder = folder / "meta_learners_runs"
    settings = {
        contender: contender.settings[0]
        if arguments.quick
        else choose(contender, episodes // 2, runs_folder)
        for contender in CONTENDERS
    }
    runs = [
        train(contender, setting, seed, episodes, runs_folder)
        for seed in seeds
        for contender, setting in settings.items()
    ]
    command = shlex.join(["python", "-m", "benchmarks.meta_learners", *sys.argv[1:]])
    claims = report(runs, command, folder)
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
