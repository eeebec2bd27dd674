"""The learner rewards explorers for the steps that the optimizer applies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alphaopt_jax as alphaopt
from alphaopt_jax._agent import sampling
from alphaopt_jax._agent.action import LeafRates
from alphaopt_jax._learning import online
from alphaopt_jax.config import AgentConfig, AlphaOptConfig, LearningConfig


def test_the_recorded_step_of_an_explorer_has_the_bound_of_the_applied_rate():
    sampled = sampling.of_shapes([(3,)])
    exploration = online.exploration_of(sampled, LearningConfig(num_explorers=3))
    state = online.init((jnp.zeros(1),), exploration, jax.random.key(0))
    state = state._replace(
        explorers=jnp.arange(3), explorer_multipliers=jnp.array([0.5, 2.0, 8.0], jnp.float16)
    )
    step = online.Step(
        slot=jnp.asarray(0),
        loss=None,
        observed=None,
        leaf_log_rates=jnp.zeros(1),
        rates=LeafRates(jnp.array([0.1]), jnp.array([4.0])),
        directions=jnp.array([[1.0, -1.0, 1.0]]),
        inverse_units=jnp.ones(1),
    )

    recorded = online.record_steps(state, step, exploration).explorer_steps

    np.testing.assert_allclose(recorded, [-0.05, 0.2, -0.4], rtol=1e-6)


@pytest.mark.parametrize("max_log_rate", [0.05, 2.0], ids=["at the bound", "within the bound"])
def test_recorded_steps_are_the_changes_of_the_parameters(max_log_rate):
    config = AlphaOptConfig(
        agent=AgentConfig(max_log_rate=max_log_rate),
        learning=LearningConfig(num_explorers=1000, action_std=0.5),
    )
    tx = alphaopt.alphaopt(agent=None, config=config)
    params = jax.random.normal(jax.random.key(0), (30,))
    state = tx.init(params)

    for number in range(3):
        grads = jax.random.normal(jax.random.key(number + 1), params.shape)
        updates, state = tx.update(grads, state, params)
        explorers = state.learner.explorers  # Small leaves are sampled whole.
        np.testing.assert_allclose(state.learner.explorer_steps, updates[explorers], rtol=1e-5)
        params = params + updates
