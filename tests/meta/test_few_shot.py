"""Meta-training on episodes, and meta-tests with a frozen agent."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import alphaopt_jax as alphaopt
from alphaopt_jax import cli
from alphaopt_jax._optimizer import state as state_lib
from alphaopt_jax.baselines._inner_loop import meta_gradient
from alphaopt_jax.baselines.maml import InitializationResult, Learned
from alphaopt_jax.config import LearningConfig
from alphaopt_jax.meta import MetaConfig
from alphaopt_jax.meta.few_shot import (
    FewShotConfig,
    Initialization,
    Learner,
    MetaTestPlan,
    frozen_optimizer,
    load_initialization,
    meta_test,
    recipes,
    save_initialization,
    train_few_shot,
    training,
)
from alphaopt_jax.meta.few_shot import _optimizers as optimizers
from alphaopt_jax.pretrained.card import load_card
from alphaopt_jax.tasks.omniglot import characters, episodes
from alphaopt_jax.tasks.rollouts import training_step

pytestmark = pytest.mark.slow

_PROTOCOL = episodes.Protocol("3-way 2-shot", 3, 2, 4)
_STEPS = 4
_CONFIG = FewShotConfig(
    _PROTOCOL,
    _STEPS,
    width=4,
    turns=1,
    initialization_episodes=4,
    rounds=2,
    meta=MetaConfig(groups=2, copies=2, minibatches=1, intervals_per_rollout=2),
    validation_episodes=3,
)


@pytest.fixture(name="data", scope="module")
def _data():
    """Characters without test characters, so that using those fails."""
    return characters.synthetic_omniglot()._replace(test=None)


@pytest.fixture(name="family", scope="module")
def _family(data):
    return episodes.episode_family(data.training, _PROTOCOL, width=4)


def _differ(tree, other):
    return any(
        np.any(left != right)
        for left, right in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    )


def test_initial_parameters_and_agent_learn_in_turns(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(characters, "load_omniglot", lambda: data)
    small = recipes._recipe(_CONFIG, "Small.", "Everything.")
    monkeypatch.setattr(recipes, "RECIPES", {"small": small})

    cli.main(["train-few-shot", "small", str(tmp_path)])

    card = load_card("small", tmp_path)
    assert (card.rounds, card.env_steps) == (2, 48)
    assert card.trained_on == ["3-way 2-shot: training alphabets of synthetic characters"]
    assert card.command == "alphaopt train-few-shot small runs/small --seed 0"
    assert "small.safetensors" in capsys.readouterr().out

    # A finished run is read from the folder; without its result, its finished parts are.
    result = train_few_shot(data, _CONFIG, folder=tmp_path, show_progress=False)
    with pytest.raises(ValueError, match="another run, which differs in config"):
        train_few_shot(data, dataclasses.replace(_CONFIG, rounds=3), folder=tmp_path)
    (tmp_path / "result.json").unlink()
    again = train_few_shot(data, _CONFIG, folder=tmp_path, show_progress=False)
    assert (again.accuracy, again.history) == (result.accuracy, result.history)
    assert not _differ(again.agent.params, result.agent.params)
    assert not _differ(again.initialization, result.initialization)

    assert [line["part"] for line in result.history] == ["start", "initialization", "agent"]
    assert [line["episodes"] for line in result.history] == [0, 4, 12]
    # The agent's part: two rounds of four members, two intervals of two steps each.
    assert [line["env_steps"] for line in result.history] == [0.0, 16.0, 48.0]
    accuracies = [line["accuracy"] for line in result.history]
    assert result.accuracy == max(accuracies[1:])
    assert result.accuracy == pytest.approx(1.0 - card.score, abs=1e-4)
    agent = alphaopt.load_agent(tmp_path / "small.safetensors")
    assert not _differ(agent.params, result.agent.params)
    start = load_initialization(tmp_path / "initializations" / "small.safetensors")
    assert not _differ(start, result.initialization)
    assert start.rate_factors is None


def test_initial_parameters_can_learn_through_gradient_descent_first(data, monkeypatch):
    """The functions that learn are replaced by fakes that record their arguments."""
    seen, accuracies = [], iter((0.1, 0.4, 0.3, 0.2))

    def learn(families, optimizer, config, **more):
        params = {"w": np.full(2, float(len(seen)))}
        tx = optimizer.optimizer_fn({})
        updates, _ = tx.update({"w": np.ones(2)}, tx.init(params), params, value=1.0)
        seen.append((more["seed"], float(updates["w"][0])))
        return InitializationResult(Learned(params, {}), 0.5, [])

    def meta_train(*args, method, **more):
        return types.SimpleNamespace(last_agent=method.agent, history=[{"env_steps": 8.0}])

    monkeypatch.setattr(training.maml, "train_initialization", learn)
    monkeypatch.setattr(training, "ppo", lambda config, agent: types.SimpleNamespace(agent=agent))
    monkeypatch.setattr(training, "meta_train", meta_train)
    monkeypatch.setattr(training, "_validation_accuracy", lambda *args: next(accuracies))
    config = dataclasses.replace(_CONFIG, descent_learning_rate=0.25)

    result = train_few_shot(data, config, show_progress=False)

    parts = ["start", "descent", "initialization", "agent"]
    assert [line["part"] for line in result.history] == parts
    assert [line["episodes"] for line in result.history[:3]] == [0, 4, 8]
    assert config.total_episodes == 8
    (first_seed, first), (second_seed, second) = seen
    assert first_seed != second_seed
    assert first == -0.25
    assert second not in (0.0, first)
    assert result.accuracy == 0.4
    np.testing.assert_array_equal(result.initialization.params["w"], 0.0)


@pytest.mark.nightly
def test_without_turns_only_the_agent_learns(data):
    result = train_few_shot(data, dataclasses.replace(_CONFIG, turns=0), show_progress=False)

    assert [line["part"] for line in result.history] == ["start", "agent"]
    assert result.initialization == Initialization()


@pytest.mark.nightly
def test_initial_parameters_learn_at_constant_rates(family):
    agent = dataclasses.replace(alphaopt.load_agent("base"), update_direction="gradient")
    frozen = frozen_optimizer(agent, _STEPS)
    task = family.draw(jax.random.key(0))
    learned = Learned(task.init(jax.random.key(1)), {})
    keys = jax.random.split(jax.random.key(2), _STEPS)

    def gradient(optimizer):
        return meta_gradient(task, lambda _: optimizer, learned, keys, "maml").params

    def at_its_rates():
        """Gradient descent with a fixed schedule: the rates on the agent's own trajectory."""
        params, state, all_rates = learned.params, frozen.init(learned.params), []
        step = training_step(task, frozen)
        for key in keys:
            (params, state), _ = step((params, state), key)
            all_rates.append(alphaopt.learning_rates(state, params))
        rates = jax.tree.map(lambda *each: jnp.stack(each), *all_rates)
        return optax.GradientTransformation(
            lambda params: 0,
            lambda grads, step, params: (
                jax.tree.map(lambda rate, grad: -rate[step] * grad, rates, grads),
                step + 1,
            ),
        )

    found = gradient(optimizers.with_constant_rates(frozen))

    jax.tree.map(
        lambda left, right: np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-5),
        found,
        gradient(at_its_rates()),
    )


def test_maml_learns_rate_factors(data, monkeypatch):
    """A fake in place of the learning multiplies the factors by 1.5 and 0.5 each time."""
    begun, validated = [], []

    def learn(families, optimizer, config, **more):
        params = {"w": np.ones(2, np.float32)}
        start = optimizer.init(params)
        tx = optimizer.optimizer_fn(start)
        updates, _ = tx.update({"w": jnp.ones(2)}, tx.init(params), params)
        begun.append((np.asarray(start["w"]), np.asarray(updates["w"])))
        return InitializationResult(
            Learned(params, {"w": np.array([1.5, 0.5], np.float32) * start["w"]}), 0.5, []
        )

    def meta_train(families, *args, method, **more):
        (family,) = families.values()
        validated.append(family.draw(jax.random.key(0)).rate_factors)
        return types.SimpleNamespace(last_agent=method.agent, history=[{"env_steps": 8.0}])

    def validation_accuracy(family, optimizer, config):
        if not begun:  # There are no initial parameters yet.
            return 0.0
        params = {"w": jnp.ones(2)}
        moved = optimizer.update({"w": jnp.ones(2)}, optimizer.init(params), params, value=1.0)[0]
        validated.append(np.asarray(moved["w"]))
        return 0.5

    monkeypatch.setattr(training.maml, "train_initialization", learn)
    monkeypatch.setattr(training, "ppo", lambda config, agent: types.SimpleNamespace(agent=agent))
    monkeypatch.setattr(training, "meta_train", meta_train)
    monkeypatch.setattr(training, "_validation_accuracy", validation_accuracy)
    agent = dataclasses.replace(_CONFIG.meta.agent, update_direction="gradient")
    config = dataclasses.replace(
        _CONFIG,
        initialization="maml",
        descent_learning_rate=0.25,
        meta=dataclasses.replace(_CONFIG.meta, agent=agent),
    )

    result = train_few_shot(data, config, show_progress=False)

    (first, descent), (second, _) = begun
    np.testing.assert_allclose(first, 0.1, rtol=1e-6)
    np.testing.assert_allclose(descent, -0.25, rtol=1e-6)
    np.testing.assert_allclose(second, [0.15, 0.05], rtol=1e-6)
    after_descent, after_turn, in_meta_training, after_agent = validated
    np.testing.assert_allclose(after_descent[0] / after_descent[1], 3.0, rtol=1e-5)
    np.testing.assert_allclose(after_turn[0] / after_turn[1], 9.0, rtol=1e-5)
    np.testing.assert_array_equal(after_agent, after_turn)
    np.testing.assert_allclose(in_meta_training["w"], [2.25, 0.25], rtol=1e-6)
    np.testing.assert_allclose(result.initialization.rate_factors["w"], [1.5, 0.5], rtol=1e-6)


def test_an_initialization_is_saved_and_loaded(family, tmp_path):
    params = family.draw(jax.random.key(0)).init(jax.random.key(1))
    path = tmp_path / "mine.safetensors"

    for start in (
        Initialization(params),
        Initialization(params, jax.tree.map(lambda leaf: leaf + 1.0, params)),
    ):
        save_initialization(path, start)
        loaded = load_initialization(path)
        assert not _differ(loaded, start)
        assert (loaded.rate_factors is None) == (start.rate_factors is None)

    save_initialization(path, Initialization(params, {"logits": params["logits"]}))
    with pytest.raises(ValueError, match="rate factors that are not shaped like the parameters"):
        load_initialization(path)
    save_initialization(path, Initialization(None, params))
    with pytest.raises(ValueError, match="holds rate_factors; an initialization holds params, and"):
        load_initialization(path)
    alphaopt.save_agent(path, alphaopt.load_agent("base"))
    with pytest.raises(ValueError, match=r"not an initialization.*save_initialization"):
        load_initialization(path)
    with pytest.raises(FileNotFoundError, match="No initialization 'nowhere'"):
        load_initialization("nowhere")


def _test(family, optimizer, initial_params=None, constant_state=None):
    learner = Learner(lambda _: optimizer, 0, initial_params, constant_state)
    plan = MetaTestPlan(3, _STEPS, evaluate_every=2, episodes_per_call=2)
    return meta_test(family, learner, plan, jax.random.key(2))


def test_meta_test_evaluates_before_and_after_training(family):
    curves = _test(family, optax.sgd(0.0))

    assert curves.steps == (0, 2, 4)
    assert curves.accuracies.shape == curves.losses.shape == (3, 3)
    np.testing.assert_array_equal(curves.accuracies[:, 0], curves.accuracies[:, 2])
    np.testing.assert_allclose(curves.mean_accuracy(4), curves.accuracy(2), rtol=1e-6)
    trained = _test(family, optax.sgd(0.3))
    np.testing.assert_array_equal(trained.losses[:, 0], curves.losses[:, 0])
    assert _differ(trained.losses, curves.losses)


def test_meta_test_starts_from_given_parameters(family):
    params = family.draw(jax.random.key(0)).init(jax.random.key(1))
    bias = np.array([0.0, 50.0, 0.0], np.float32)
    params = params | {"logits": params["logits"] | {"bias": bias}}

    curves = _test(family, optax.sgd(0.0), initial_params=params)

    # The network always predicts the second of three classes.
    np.testing.assert_allclose(curves.accuracies, 1.0 / 3.0, rtol=1e-6)


def test_meta_test_refuses_an_agent_that_changes(family):
    frozen = frozen_optimizer(alphaopt.load_agent("base"), _STEPS)

    def params(state):
        return state_lib.find(state).agent

    assert _test(family, frozen, constant_state=params).accuracies.shape == (3, 3)
    learning = alphaopt.alphaopt(
        agent=None,
        config=alphaopt.AlphaOptConfig(learning=LearningConfig(rollout_length=2)),
        learn=True,
    )
    with pytest.raises(RuntimeError, match="The agent changed during a meta-test"):
        _test(family, learning, constant_state=params)


def test_rates_for_fresh_networks_multiply_normalized_gradients():
    learned, alone = (recipes.CONFIGS[name] for name in (recipes.LEARNED, recipes.RANDOM))

    assert (learned.turns, learned.meta.agent.update_direction) == (1, "gradient")
    assert (alone.turns, alone.meta.agent.update_direction) == (0, "adam")
    with pytest.raises(ValueError, match="MAML need an agent whose rates multiply the gr"):
        dataclasses.replace(alone, turns=1)
    with pytest.raises(SystemExit, match="No few-shot agent has the name 'none'; the names are"):
        cli.main(["train-few-shot", "none", "runs/none"])
