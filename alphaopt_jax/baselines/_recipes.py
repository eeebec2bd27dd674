"""How each baseline is trained, by its name."""

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


def train_baseline(
    name: str, folder: str | os.PathLike[str], *, seed: int = 0, show: bool = True
) -> card.Card:
    """Trains a baseline, and writes it and its card into a folder.

    Args:
      name: One of `RECIPES`.
      folder: Where; a training that was interrupted goes on from what it finds there.
      seed: Of everything random.
      show: Whether to show progress.

    Returns:
      The card.

    Raises:
      ValueError: There is no such baseline.
    """
    return training.train_pretrained(
        RECIPES, name, folder, what="baseline", command="train-baseline", seed=seed, show=show
    )


def _lstm(
    make: Callable[[], Family], config: LSTMConfig
) -> Callable[[int, pathlib.Path, bool], TrainingResult]:
    def train(seed: int, folder: pathlib.Path, show: bool) -> TrainingResult:
        family = make()
        result = l2l.train_lstm(family, config, seed=seed, folder=folder, show=show)
        episodes = int(result.history[-1]["round"])
        return TrainingResult(
            save=lambda path: l2l.save_lstm(path, result.optimizer),
            trained_on=[family.name],
            selected_on=[family.name],
            rounds=episodes,
            env_steps=episodes * config.training.tasks * config.training.horizon,
            score=result.score,
        )

    return train


def _guided_2016(
    make: Callable[[], Family], num_functions: int, config: Config2016
) -> Callable[[int, pathlib.Path, bool], TrainingResult]:
    def train(seed: int, folder: pathlib.Path, show: bool) -> TrainingResult:
        family = make()
        result = li_malik.train_2016(
            family, config, num_functions=num_functions, seed=seed, folder=folder, show=show
        )
        steps = num_functions * config.starts * config.trajectories * config.horizon
        return TrainingResult(
            save=lambda path: li_malik.save_2016(path, result.policy),
            trained_on=[family.name],
            selected_on=[family.name],
            rounds=len(result.history),
            env_steps=len(result.history) * steps,
            score=result.cost,
        )

    return train


def _guided_2017(
    make: Callable[[], Family], config: Config2017
) -> Callable[[int, pathlib.Path, bool], TrainingResult]:
    def train(seed: int, folder: pathlib.Path, show: bool) -> TrainingResult:
        family = make()
        result = li_malik.train_2017(family, config, seed=seed, folder=folder, show=show)
        return TrainingResult(
            save=lambda path: li_malik.save_2017(path, result.policy),
            trained_on=[family.name],
            selected_on=[family.name],
            rounds=len(result.history),
            env_steps=len(result.history) * config.trajectories * config.horizon,
            score=result.cost,
        )

    return train


_ONE_DIMENSION = "It optimizes functions of {} parameters, and no others."
_BEHIND_MOMENTUM = (
    "On functions that it has not seen its mean objective over 40 steps is {}; that of momentum"
    " which is tuned for each of them, {}."
)
RECIPES: Mapping[str, Recipe] = {
    "l2l-quadratics": Recipe(
        "A coordinatewise LSTM of 2 x 20 units, trained by backpropagation through time on random"
        " quadratics of 10 dimensions, for 100 steps each.",
        ("It knows nothing but quadratics that begin at a loss of about 1.",),
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
            "It knows one network and one data set; with ReLU in place of sigmoid its loss after"
            " 100 steps is 0.50, that of a tuned Adam 0.29.",
            "Trainings that are longer than 200 steps.",
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
        ("It knows one network and one data set.",),
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
        (_ONE_DIMENSION.format(4), _BEHIND_MOMENTUM.format(0.392, 0.379)),
        _guided_2016(li_malik_2016.logistic_regression, 90, Config2016()),
    ),
    "li-malik-robust": Recipe(
        "A full-vector policy of 50 softplus units, learned by guided policy search on robust"
        " regressions in three dimensions, for 40 steps each.",
        (_ONE_DIMENSION.format(4), _BEHIND_MOMENTUM.format(0.475, 0.465)),
        _guided_2016(li_malik_2016.robust_regression, 120, Config2016()),
    ),
    "li-malik-tiny-net": Recipe(
        "A full-vector policy of 50 softplus units, learned by guided policy search on classifiers"
        " of two ReLU units, for 40 steps each.",
        (_ONE_DIMENSION.format(12), _BEHIND_MOMENTUM.format(0.426, 0.386)),
        _guided_2016(li_malik_2016.tiny_net, 80, Config2016(starts=1)),
    ),
    "li-malik-2017": Recipe(
        "A coordinatewise LSTM of 128 cells, learned by guided policy search on one net of 48 units"
        " and projected MNIST, for 400 steps.",
        (
            "For every parameter it computes an LSTM of 128 cells, and remembers 256 numbers.",
            "On the net that it was trained on it is behind the momentum that its controllers began"
            " as: 0.527 is its mean objective over 400 steps, 0.504 that of the momentum.",
        ),
        _guided_2017(li_malik_2017.projected_net, Config2017()),
    ),
}
"""The baselines by name."""
