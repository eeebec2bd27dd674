"""Everything that users call works under JAX's own checks, in and out of `jit`."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alphaopt_jax as alphaopt
from alphaopt_jax.config import AlphaOptConfig, LearningConfig, pretrained_config
from benchmarks.robustness.situations import checks, trainings

_STEPS = 18  # Two episodes, each with a round of learning.
_ONE_ROUND = 14  # Steps before the second one.
_EAGER_STEPS = 4
_SLOW = pytest.mark.slow
# The check for leaked tracers compiles everything anew in each call.
_FLAGS = [
    pytest.param(flag, marks=pytest.mark.nightly if flag == "jax_check_tracer_leaks" else [])
    for flag in checks.FLAGS
]


def _modes():
    slow = {"learn=True", "from scratch"}
    return [pytest.param(mode, marks=[_SLOW] if mode in slow else []) for mode in trainings.MODES]


@pytest.mark.parametrize("flag", checks.FLAGS)
@pytest.mark.parametrize("mode", _modes())
def test_trainings_run_under_the_check(mode, flag):
    expected, _, _ = checks.train(
        trainings.make(mode), checks.params(), checks.cost, jit=True, steps=_STEPS
    )

    with checks.FLAGS[flag]():
        found, state, _ = checks.train(
            trainings.make(mode), checks.params(), checks.cost, jit=True, steps=_STEPS
        )

    if (mode, flag) != ("learn=True", "jax_enable_x64"):  # See below.
        assert trainings.distance(found, expected) < 1e-4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    if mode != "no horizon":
        assert state.learner.rounds == 2


@_SLOW
def test_learning_in_double_precision_is_equal_until_its_second_round():
    # Which enlarges what is rounded otherwise: a hundredth in one step, a quarter in the next.
    def train():
        tx = trainings.make("learn=True")
        return checks.train(tx, checks.params(), checks.cost, jit=True, steps=_ONE_ROUND)[0]

    expected = train()

    with checks.FLAGS["jax_enable_x64"]():
        assert trainings.distance(train(), expected) < 1e-4


@_SLOW
@pytest.mark.parametrize("flag", _FLAGS)
@pytest.mark.parametrize("mode", _modes())
def test_calls_outside_of_jit_run_under_the_check(mode, flag):
    with checks.FLAGS[flag]():
        found, _, _ = checks.train(
            trainings.make(mode), checks.params(), checks.cost, jit=False, steps=_EAGER_STEPS
        )

    assert all(np.isfinite(leaf).all() for leaf in found.values())
    assert not np.array_equal(found["matrix"], checks.params()["matrix"])


_VARIANTS = {
    "num_steps": {"num_steps": _STEPS},
    "masked weight decay": {
        "weight_decay": 0.1,
        "mask": lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
    },
    "schedules": {"learning_rate": lambda count: 1.0, "weight_decay": lambda count: 0.1},
    "key": {"agent": None},
    "a fresh agent that does not learn": {"agent": None, "learn": False},
}


def test_no_array_of_a_state_is_infinite_and_the_agent_is_read_back(decided_agent):
    assert decided_agent.inverse_sqrt_steps == math.inf
    tx = alphaopt.alphaopt(agent=decided_agent, learn=True)

    with jax.debug_infs(True):
        params, state, _ = checks.train(tx, checks.params(), checks.cost, jit=True, steps=4)

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, state)))
    assert alphaopt.agent_from_state(state).inverse_sqrt_steps == math.inf


@pytest.mark.parametrize("flag", _FLAGS)
@pytest.mark.parametrize("variant", _VARIANTS)
def test_arguments_run_under_the_check(variant, flag):
    arguments = dict(_VARIANTS[variant])
    if variant == "key":  # Under the check of reuse, a key is used once.
        arguments["seed"] = jax.random.key(3)
    with checks.FLAGS[flag]():
        tx = alphaopt.alphaopt(**arguments)
        found, _, _ = checks.train(tx, checks.params(), checks.cost, jit=True, steps=4)

    assert not np.array_equal(found["matrix"], checks.params()["matrix"])


def _complex_cost(params):
    return jnp.sum(jnp.square(jnp.abs(params["w"] - jnp.complex64(1.0 + 2.0j))))


@pytest.mark.parametrize("flag", _FLAGS)
def test_complex_leaves_run_under_the_check(flag):
    params = {"w": jnp.full((2, 3), 0.5 + 0.5j, jnp.complex64)}
    with checks.FLAGS[flag]():
        found, _, value = checks.train(
            trainings.make("no horizon"), params, _complex_cost, jit=True, steps=40
        )

    assert found["w"].dtype == jnp.complex64
    assert value < 0.5 * _complex_cost(params)


@pytest.mark.parametrize("flag", _FLAGS)
@pytest.mark.parametrize("learn", [False, pytest.param(True, marks=_SLOW)])
def test_narrow_types_run_under_the_check(flag, learn):
    config = dataclasses.replace(pretrained_config(), moment_dtype="bfloat16")
    params = {"w": jnp.ones((4, 3), jnp.bfloat16), "b": jnp.zeros((3,), jnp.float16)}

    def cost(params):
        outputs = jnp.sum(params["w"].astype(jnp.float32), axis=0)
        outputs += params["b"].astype(jnp.float32)
        return jnp.mean(jnp.square(outputs - jnp.float32(0.3)))

    with checks.FLAGS[flag]():
        tx = alphaopt.alphaopt(learn=learn, config=config)
        found, state, value = checks.train(tx, params, cost, jit=True, steps=_STEPS)

    assert [found[name].dtype for name in ("w", "b")] == [jnp.bfloat16, jnp.float16]
    assert state.gradient_average["w"].dtype == jnp.bfloat16
    assert value < cost(params)


@pytest.mark.parametrize("flag", _FLAGS)
@pytest.mark.parametrize("reward", ["shared", "divided"])
@_SLOW
def test_rewards_run_under_the_check(flag, reward):
    config = AlphaOptConfig(learning=LearningConfig(reward=reward))
    with checks.FLAGS[flag]():
        tx = alphaopt.alphaopt(agent=None, config=config)
        _, state, _ = checks.train(tx, checks.params(), checks.cost, jit=True, steps=_STEPS)

    assert state.learner.rounds == 2
