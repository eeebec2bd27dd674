"""The experiments of Andrychowicz et al. 2016, with the losses that the paper reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses

from flax import linen as nn

from alphaopt_jax.tasks.papers import l2l as tasks
from alphaopt_jax.tasks.task import Family
from benchmarks.l2l.optimizers import LSTM


@dataclasses.dataclass(frozen=True)
class Problem:
    """One experiment of the paper.

    Attributes:
      name: Name in tables and pictures.
      family: Creates the family of tasks.
      lstm: Name of the pretrained LSTM.
      runs: Tasks, or initial parameters, to measure on.
      paper: The paper's losses at step 100, read off its figures, by optimizer.
      paper_later: The paper's losses at step 200.
    """

    name: str
    family: Callable[[], Family]
    lstm: str
    runs: int
    paper: Mapping[str, float]
    paper_later: Mapping[str, float] = dataclasses.field(default_factory=dict)


def _paper(lstm: float, adam: float, rmsprop: float, nag: float, sgd: float) -> dict[str, float]:
    return {LSTM: lstm, "Adam": adam, "RMSprop": rmsprop, "NAG": nag, "SGD": sgd}


PROBLEMS = (
    Problem(
        "quadratics",
        tasks.quadratics,
        "l2l-quadratics",
        256,
        _paper(0.037, 0.05, 0.058, 0.08, 0.21),
    ),
    Problem(
        "MNIST, 20 sigmoid units",
        tasks.mnist_mlp,
        "l2l-mnist",
        10,
        _paper(0.245, 0.34, 0.34, 0.33, 0.45),
        _paper(0.21, 0.30, 0.29, 0.28, 0.32),
    ),
    Problem(
        "MNIST, 40 units",
        lambda: tasks.mnist_mlp((40,), name="l2l_mnist_40_units"),
        "l2l-mnist",
        10,
        _paper(0.19, 0.32, 0.32, 0.32, 0.46),
    ),
    Problem(
        "MNIST, two layers",
        lambda: tasks.mnist_mlp((20, 20), name="l2l_mnist_two_layers"),
        "l2l-mnist",
        10,
        {},
    ),
    Problem(
        "MNIST, ReLU",
        lambda: tasks.mnist_mlp(activation=nn.relu, name="l2l_mnist_relu"),
        "l2l-mnist",
        10,
        _paper(2.5, 0.4, 0.4, 0.36, 0.45),
    ),
)
"""All experiments. The first LSTM was trained on the first, the second LSTM on the second."""
