"""optax's own test suites on more variants of AlphaOpt: frozen, without a loss, other configs."""

import optax
import pytest

import alphaopt_jax
from alphaopt_jax import AgentConfig, AlphaOptConfig, LearningConfig
from tests import optax_suites

pytestmark = pytest.mark.slow

ContribTest = optax_suites.contrib_test("learning")
AliasTest = optax_suites.alias_test("learning_given_value", "frozen")
ShardingTest = optax_suites.sharding_test(
    frozen=alphaopt_jax.alphaopt(agent=None, learn=False),
    shared_credit_and_decay=alphaopt_jax.alphaopt(
        agent=None,
        weight_decay=0.1,
        config=AlphaOptConfig(learning=LearningConfig(reward="shared")),
    ),
    raw_gradient_and_schedule=alphaopt_jax.alphaopt(
        optax.constant_schedule(0.5),
        agent=None,
        config=AlphaOptConfig(agent=AgentConfig(update_direction="gradient")),
    ),
)

# 10,000 steps each, one call of `jit` at a time. ContribTest and test_trees.py check convergence of
# real and complex parameters in fewer seconds.
for _name in optax_suites.names(AliasTest):
    if _name.startswith("test_optimization"):
        pytest.mark.nightly(getattr(AliasTest, _name))


def test_suites_contain_the_expected_number_of_tests():
    assert optax_suites.num_tests(ContribTest) == 1 * 2 + 4 + 1 + 2 + 2 + 4 + 1
    assert optax_suites.num_tests(AliasTest) == 2 * (4 + 1 + 1 + 2 + 6 + 2)
    assert optax_suites.num_tests(ShardingTest) == 3 * 3
