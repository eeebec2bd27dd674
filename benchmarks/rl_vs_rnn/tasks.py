"""The training objectives of `benchmarks.rl_vs_rnn`, and the tests of the trained networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import chex
from flax import linen as nn
import jax.numpy as jnp

from alphaopt_jax.tasks import networks
from alphaopt_jax.tasks.families import classification, distribution, supervised, synthetic
from alphaopt_jax.tasks.task import Family
from benchmarks.rl_vs_rnn.learners import Objective

HORIZON = 100
TRAINING_TASKS, UNSEEN_TASKS, LONGER = "training tasks", "unseen tasks", "ten times the steps"
TRAINED = ("linear_regression", "raw_mixture_relu", "deep_mixture_relu")
VALIDATED = ("wide_linear_regression", "wide_mixture_sigmoid", "deep_mixture_tanh")


@dataclasses.dataclass(frozen=True)
class Test:
    """A test of trained networks.

    Attributes:
      name: Name in tables.
      objectives: Objectives, with equal weight.
      steps: Number of updates on each task.
    """

    name: str
    objectives: Sequence[Objective]
    steps: int = HORIZON


def loss_objectives() -> list[Objective]:
    """Training objectives: families that are scored by their own loss."""
    families = distribution.training_families()
    return [Objective(families[name], families[name]) for name in TRAINED]


def validation_objectives() -> list[Objective]:
    """Validation objectives; their families are not among the training families."""
    families = distribution.validation_families()
    return [Objective(families[name], families[name]) for name in VALIDATED]


def loss_tests() -> list[Test]:
    """Tests of networks trained by the loss."""
    plain = {family.name: family for family in distribution.plain_training_families()}

    def test(name: str, *families: Family) -> Test:
        return Test(name, [Objective(family, family) for family in families])

    return [
        test(TRAINING_TASKS, *(plain[name] for name in TRAINED)),
        Test(UNSEEN_TASKS, validation_objectives()),
        Test(LONGER, validation_objectives(), 10 * HORIZON),
        test(
            "other activations",
            *(_classifier(activation=each) for each in (nn.sigmoid, nn.gelu, nn.elu)),
        ),
        test("other widths", _classifier((8,)), _classifier((200,))),
        test("deeper", _classifier((32,) * 4)),
        test("convolutional net", classification.training_conv_nets()[0]),
    ]


def error_objectives() -> list[Objective]:
    """Classifiers with the cross-entropy as loss, scored by the share of errors."""
    return [_by_errors(hidden=(48,))]


def error_tests() -> list[Test]:
    """Tests of networks trained by the share of errors."""
    return [
        Test(TRAINING_TASKS, error_objectives()),
        Test("other widths", [_by_errors(hidden=(8,)), _by_errors(hidden=(200,))]),
        Test("deeper", [_by_errors(hidden=(32,) * 4)]),
    ]


def zero_one(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """Share of wrongly classified examples; its gradient is zero almost everywhere."""
    return jnp.mean(jnp.argmax(logits, axis=-1) != labels, dtype=jnp.float32)


def _by_errors(hidden: Sequence[int]) -> Objective:
    return Objective(_classifier(hidden), _classifier(hidden, loss=zero_one, batch_size=256))


def _classifier(
    hidden: Sequence[int] = (48,),
    activation: Callable[..., Any] = nn.relu,
    loss: supervised.Loss = supervised.cross_entropy,
    batch_size: int = 64,
) -> Family:
    return supervised.supervised_family(
        "classifier",
        networks.MLP(tuple(hidden), 5, activation),
        synthetic.gaussian_mixture(16, 5),
        loss,
        batch_size=batch_size,
    )
