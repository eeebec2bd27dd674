"""A short training matches its stored losses, learning rates, rewards and parameter norms.

A change of these numbers is a change for users. If it is intended, store new ones with
`python -m tests.contract.test_trajectory` and add an entry to the changelog.
"""

import json
import math
import pathlib

import jax
import numpy as np
import optax
import pytest

import alphaopt_jax as alphaopt
from alphaopt_jax.config import AgentConfig, LearningConfig, PPOConfig
from tests import training

_FILE = pathlib.Path(__file__).parent / "data" / "trajectory.json"
_STEPS = 40
# Every constant is explicit, so that new defaults do not invalidate the stored numbers.
_CONFIG = alphaopt.AlphaOptConfig(
    relative_step=0.03,
    min_rms=0.02,
    max_relative_step=0.05,
    gradient_decay=0.9,
    squared_gradient_decay=0.99,
    epsilon=1e-12,
    moment_dtype="float32",
    refresh_interval=8,
    agent=AgentConfig(
        actor_hidden=8,
        critic_hidden=32,
        leaf_hidden=0,
        max_log_rate=2.0,
        inverse_sqrt_steps=math.inf,
        update_direction="adam",
    ),
    learning=LearningConfig(
        num_explorers=64,
        rollout_length=8,
        action_std=0.3,
        reward="divided",
        previous_gradient_weight=0.0,
        team_weight=2.0,
        kl_weight=0.0,
        level_change=0.05,
        ppo=PPOConfig(
            discount=0.98,
            gae_lambda=0.8,
            clip_epsilon=0.2,
            epochs=4,
            value_loss_weight=0.5,
            learning_rate=3e-3,
        ),
    ),
)


def _record(learn):
    tx = alphaopt.alphaopt(agent=None, learn=learn, seed=3, config=_CONFIG)
    params = training.init_params()
    state = tx.init(params)
    step = jax.jit(training.make_step(tx))
    record = {"loss": [], "mean_rate": [], "reward": [], "parameter_norm": []}
    for number in range(_STEPS):
        params, state, loss = step(params, state, training.batch(number))
        figures = alphaopt.metrics(state)
        record["loss"].append(float(loss))
        record["mean_rate"].append(float(figures["mean_learning_rate"]))
        record["reward"].append(float(figures.get("reward", 0.0)))
        record["parameter_norm"].append(float(optax.tree.norm(params)))
    return record


@pytest.mark.parametrize("learn", [True, False])
def test_trajectory_matches_the_stored_one(learn):
    stored = json.loads(_FILE.read_text())["learning" if learn else "frozen"]

    record = _record(learn)

    assert record["loss"][-1] < 0.5 * record["loss"][0]
    for name, values in stored.items():
        np.testing.assert_allclose(record[name], values, rtol=2e-3, atol=1e-4, err_msg=name)


if __name__ == "__main__":
    _FILE.parent.mkdir(exist_ok=True)
    _FILE.write_text(json.dumps({"learning": _record(True), "frozen": _record(False)}, indent=1))
