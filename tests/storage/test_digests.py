"""Digests of constants tell all configurations apart, and outlive new fields."""

import dataclasses

import pytest

from alphaopt_jax._storage import digests
from alphaopt_jax.config import AgentConfig, AlphaOptConfig, LearningConfig, PPOConfig


@dataclasses.dataclass(frozen=True)
class _Now:
    rate: float = 0.5
    clipping: float | None = None


@dataclasses.dataclass(frozen=True)
class _Later:
    rate: float = 0.5
    clipping: float | None = None
    averages: bool = False
    seeds: int = 0


def _digest(config):
    return digests.digest(digests.constants(config))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (AgentConfig(actor_hidden=32, critic_hidden=8), AgentConfig(8, 32)),
        (AgentConfig(actor_hidden=0, leaf_hidden=8), AgentConfig(actor_hidden=8, leaf_hidden=0)),
        (
            AlphaOptConfig(gradient_decay=0.99, squared_gradient_decay=0.9),
            AlphaOptConfig(gradient_decay=0.9, squared_gradient_decay=0.99),
        ),
        (
            LearningConfig(ppo=PPOConfig(discount=0.8, gae_lambda=0.98)),
            LearningConfig(ppo=PPOConfig(discount=0.98, gae_lambda=0.8)),
        ),
        (AgentConfig(), AgentConfig(update_direction="gradient")),
        ((_Now(), _Now(1.0)), (_Now(1.0), _Now())),
    ],
    ids=["sizes", "an absent size", "decays", "in a field", "a string", "in a tuple"],
)
def test_swapped_values_have_another_digest(first, second):
    assert _digest(first) != _digest(second)


def test_new_fields_that_are_switched_off_change_nothing():
    assert _digest(_Now()) == _digest(_Later())
    assert _digest(_Now()) != _digest(_Later(averages=True))
