"""Recipes of the pretrained baselines, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import os
import pathlib

from alphaopt_jax.baselines import l2l, li_malik
from alphaopt_jax.baselines.bptt import BackpropagationConfig
from alphaopt_jax.baselines.l2l import LSTMConfig
from alphaopt_jax.baselines.li_malik import Config2016, Config2017
from alphaopt_jax.pretrained import card, training
from alphaopt_jax.pretrained.training import Recipe, TrainingResult
from alphaopt_jax.tasks.papers import l2l as l2l_tasks
from alphaopt_jax.tasks.papers import li_malik_2016, li_malik_2017
from alphaopt_jax.tasks.task import Family

Train = Callable[[int, pathlib.Path, bool], TrainingResult]
"""From a seed, a folder for checkpoints and whether to show progress to the result."""


def train_baseline(
    name: str, folder: str | os.PathLike[str], *, seed: int = 0, show_progress: bool = True
) -> card.Card:
    """Trains a baseline, and writes its parameters and its card.

    Args:
      name: A name in `RECIPES`.
      folder: Folder for parameters, card and checkpoints; an interrupted training continues from
        the latest checkpoint.
      seed: Random seed of the whole training.
      show_progress: True to show progress.

    Returns:
      The card.

    Raises:
      ValueError: `name` is not in `RECIPES`.
    """
    return training.train_pretrained(
        RECIPES,
        name,
        folder,
        what="baseline",
        command="train-baseline",
        seed=seed,
        show=show_progress,
    )


def _lstm(make_family: Callable[[], Family], config: LSTMConfig) -> Train:
    def train(seed: int, folder: pathlib.Path, show_progress: bool) -> TrainingResult:
        family = make_family()
        result = l2l.train_lstm(
            family, config, seed=seed, folder=folder, show_progress=show_progress
        )
        episodes = int(result.history[-1]["round"])
        return _trained_on(
            family,
            lambda path: l2l.save_lstm(path, result.optimizer),
            rounds=episodes,
            env_steps=episodes * config.training.tasks * config.training.horizon,
            score=result.score,
        )

    return train


def _guided_2016(make_family: Callable[[], Family], config: Config2016) -> Train:
    def train(seed: int, folder: pathlib.Path, show_progress: bool) -> TrainingResult:
        family = make_family()
        result = li_malik.train_2016(
            family, config, seed=seed, folder=folder, show_progress=show_progress
        )
        rounds = len(result.history)
        trajectories = config.num_functions * config.starts * config.trajectories
        return _trained_on(
            family,
            lambda path: li_malik.save_2016(path, result.policy),
            rounds=rounds,
            env_steps=rounds * trajectories * config.horizon,
            score=result.cost,
        )

    return train


def _guided_2017(make_family: Callable[[], Family], config: Config2017) -> Train:
    def train(seed: int, folder: pathlib.Path, show_progress: bool) -> TrainingResult:
        family = make_family()
        result = li_malik.train_2017(
            family, config, seed=seed, folder=folder, show_progress=show_progress
        )
        rounds = len(result.history)
        return _trained_on(
            family,
            lambda path: li_malik.save_2017(path, result.policy),
            rounds=rounds,
            env_steps=rounds * config.trajectories * config.horizon,
            score=result.cost,
        )

    return train


def _trained_on(
    family: Family,
    save: Callable[[pathlib.Path], None],
    *,
    rounds: int,
    env_steps: int,
    score: float,
) -> TrainingResult:
    """Result of a baseline that was trained and selected on one family."""
    names = [family.name]
    return TrainingResult(save, names, names, rounds, env_steps, score)


_ONE_DIMENSION = "It only optimizes functions of {} parameters."
_MOMENTUM_IS_BETTER = (
    "Its mean objective over 40 steps on unseen functions is {}; momentum tuned for each function"
    " reaches {}."
)
RECIPES: Mapping[str, Recipe] = {
    "l2l-quadratics": Recipe(
        "A coordinatewise LSTM of 2 x 20 units, trained by backpropagation through time on random"
        " quadratics of 10 dimensions, for 100 steps each.",
        ("It was only trained on quadratics with an initial loss of about 1.",),
        _lstm(
            l2l_tasks.quadratics,
            LSTMConfig(
                log_sign_exponent=0.0,
                output_scale=1.0,
                training=BackpropagationConfig(
                    tasks=32,
                    episodes=2000,
                    validate_every=50,
                    validation_tasks=128,
                    patience=20,
                ),
            ),
        ),
    ),
    "l2l-mnist": Recipe(
        "A coordinatewise LSTM of 2 x 20 units, trained by backpropagation through time on MNIST"
        " classifiers of 20 sigmoid units, for 100 steps each.",
        (
            "It was trained on one network and one data set. With ReLU instead of sigmoid units its"
            " loss after 100 steps is 0.50, that of a tuned Adam 0.29.",
            "It degrades in trainings longer than 200 steps.",
        ),
        _lstm(
            l2l_tasks.mnist_mlp,
            LSTMConfig(
                training=BackpropagationConfig(
                    episodes=600,
                    validate_every=20,
                    validation_tasks=4,
                    learning_rates=(3e-3, 1e-2),
                )
            ),
        ),
    ),
    "l2l-projected-mnist": Recipe(
        "A coordinatewise LSTM of 2 x 20 units, trained by backpropagation through time on one net"
        " of 48 units and projected MNIST, for 400 steps: the rival of li-malik-2017.",
        ("It was trained on one network and one data set.",),
        _lstm(
            li_malik_2017.projected_net,
            LSTMConfig(
                training=BackpropagationConfig(
                    horizon=400, episodes=200, validate_every=10, validation_tasks=4
                )
            ),
        ),
    ),
    "li-malik-logistic": Recipe(
        "A full-vector policy of 50 softplus units, learned by guided policy search on logistic"
        " regressions in three dimensions, for 40 steps each.",
        (_ONE_DIMENSION.format(4), _MOMENTUM_IS_BETTER.format(0.392, 0.379)),
        _guided_2016(li_malik_2016.logistic_regression, Config2016(num_functions=90)),
    ),
    "li-malik-robust": Recipe(
        "A full-vector policy of 50 softplus units, learned by guided policy search on robust"
        " regressions in three dimensions, for 40 steps each.",
        (_ONE_DIMENSION.format(4), _MOMENTUM_IS_BETTER.format(0.475, 0.465)),
        _guided_2016(li_malik_2016.robust_regression, Config2016(num_functions=120)),
    ),
    "li-malik-tiny-net": Recipe(
        "A full-vector policy of 50 softplus units, learned by guided policy search on classifiers"
        " of two ReLU units, for 40 steps each.",
        (_ONE_DIMENSION.format(12), _MOMENTUM_IS_BETTER.format(0.426, 0.386)),
        _guided_2016(li_malik_2016.tiny_net, Config2016(num_functions=80, starts=1)),
    ),
    "li-malik-2017": Recipe(
        "A coordinatewise LSTM of 128 cells, learned by guided policy search on one net of 48 units"
        " and projected MNIST, for 400 steps.",
        (
            "It evaluates an LSTM of 128 cells for every parameter, with a state of 256 numbers.",
            "Its mean objective over 400 steps on the net that it was trained on is 0.527; the"
            " momentum from which its controllers start reaches 0.504.",
        ),
        _guided_2017(li_malik_2017.projected_net, Config2017()),
    ),
}
"""Recipes by the name of the baseline."""
