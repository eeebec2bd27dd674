"""What `benchmarks.rl_vs_rnn` trains on, and what it then tries the trained networks on."""

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
TRAINED = ("linear_regression", "raw_mixture_relu", "deep_mixture_relu")
VALIDATED = ("wide_linear_regression", "wide_mixture_sigmoid", "deep_mixture_tanh")


@dataclasses.dataclass(frozen=True)
class Test:
    """Something that the networks were not trained on.

    Attributes:
      name: What tables call it.
      objectives: What to optimize, and what counts in it.
      steps: For how long.
    """

    name: str
    objectives: Sequence[Objective]
    steps: int = HORIZON


def loss_objectives() -> list[Objective]:
    """What is trained on in turn: families that are each judged by their own loss."""
    families = distribution.training_families()
    return [Objective(families[name], families[name]) for name in TRAINED]


def validation_objectives() -> list[Objective]:
    """What trainings are judged by; none is of a kind that is trained on."""
    families = distribution.validation_families()
    return [Objective(families[name], families[name]) for name in VALIDATED]


def loss_tests() -> list[Test]:
    """What networks that were trained by the loss are tried on, frozen."""
    plain = {family.name: family for family in distribution.plain_training_families()}

    def test(name: str, *families: Family) -> Test:
        return Test(name, [Objective(family, family) for family in families])

    return [
        test("what it was trained on", *(plain[name] for name in TRAINED)),
        Test("unseen tasks", validation_objectives()),
        Test("ten times the steps", validation_objectives(), 10 * HORIZON),
        test(
            "other activations",
            *(_classifier(activation=each) for each in (nn.sigmoid, nn.gelu, nn.elu)),
        ),
        test("other widths", _classifier((8,)), _classifier((200,))),
        test("deeper", _classifier((32,) * 4)),
        test("a convolutional net", classification.training_conv_nets()[0]),
    ]


def error_objectives() -> list[Objective]:
    """Classifiers that learn by their cross-entropy and count by their share of errors."""
    return [_of_errors(hidden=(48,))]


def error_tests() -> list[Test]:
    """What networks that were trained by the share of errors are tried on, frozen."""
    return [
        Test("what it was trained on", error_objectives()),
        Test("other widths", [_of_errors(hidden=(8,)), _of_errors(hidden=(200,))]),
        Test("deeper", [_of_errors(hidden=(32,) * 4)]),
    ]


def zero_one(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """Share of examples that are classified wrongly: its derivative is zero wherever it has one."""
    return jnp.mean(jnp.argmax(logits, axis=-1) != labels, dtype=jnp.float32)


def _of_errors(hidden: Sequence[int]) -> Objective:
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
