"""The LSTM optimizer: its features, its training, and its behavior as an optax transformation."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alphaopt_jax.baselines import _bptt_trainer, bptt
from alphaopt_jax.baselines.bptt import BackpropagationConfig, TrainableOptimizer
from alphaopt_jax.baselines.l2l import (
    LSTMConfig,
    LSTMOptimizer,
    _network,
    l2l,
    load_lstm,
    save_lstm,
    train_lstm,
)
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.papers import l2l as l2l_tasks
from alphaopt_jax.tasks.task import Task

pytestmark = pytest.mark.slow


def _lstm(seed: int = 0, grouping: str = "all", **constants) -> LSTMOptimizer:
    groups = {"all": ("all",), "conv_and_dense": ("conv", "dense")}[grouping]
    keys = jax.random.split(jax.random.key(seed), len(groups))
    features = 2 if constants.get("log_sign_exponent", 10.0) else 1
    params = {
        group: _network.init_params(key, (4, 3), features)
        for group, key in zip(groups, keys, strict=True)
    }
    return LSTMOptimizer(params, grouping, **constants)


def _bowl(params, batch=None):
    del batch
    return sum(jnp.sum(jnp.square(leaf - 1.0)) for leaf in jax.tree.leaves(params))


def _run(tx, params, steps, loss=_bowl):
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


# Features and updates.


def test_log_sign_features_match_the_paper():
    features = _network.log_sign(jnp.array([np.e, -np.exp(-5.0), 1e-6, 0.0]), 10.0)

    expected = [[0.1, 1.0], [-0.5, -1.0], [-1.0, np.exp(10.0) * 1e-6], [-1.0, 0.0]]
    np.testing.assert_allclose(features, expected, rtol=1e-5)


def test_log_sign_is_differentiable_at_zero():
    slope = jax.grad(lambda g: jnp.sum(_network.log_sign(g, 10.0)))(jnp.zeros(2))

    np.testing.assert_allclose(slope, np.exp(10.0), rtol=1e-5)


def test_updates_are_equivariant_to_permutations():
    params = jax.random.normal(jax.random.key(0), (30,))
    slopes, order = jnp.geomspace(0.1, 10.0, 30), jax.random.permutation(jax.random.key(1), 30)
    tx = l2l(_lstm())

    found, _ = _run(tx, params, 4, lambda x: jnp.sum(slopes * x**2))
    permuted, _ = _run(tx, params[order], 4, lambda x: jnp.sum(slopes[order] * x**2))

    np.testing.assert_allclose(permuted, found[order], rtol=1e-5)


def test_updates_do_not_depend_on_the_tree():
    start = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.float32(6.0)}

    found, _ = _run(l2l(_lstm()), start, 3)
    flat, _ = _run(l2l(_lstm()), jnp.arange(7.0), 3)

    np.testing.assert_allclose(jnp.append(found["a"], found["b"]), flat, rtol=1e-5)


def test_convolutions_can_have_their_own_lstm():
    both = _lstm(grouping="conv_and_dense")
    start = {"conv": jnp.zeros((2, 2, 1, 1)), "dense": jnp.zeros((2, 2))}

    found, _ = _run(l2l(both), start, 3)

    for group in ("conv", "dense"):
        alone, _ = _run(l2l(LSTMOptimizer({"all": both.params[group]})), start[group], 3)
        np.testing.assert_allclose(found[group], alone, rtol=1e-5)


def test_updates_have_the_dtype_of_gradients_and_the_state_is_float32():
    params = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones((), jnp.float16)}
    tx = l2l(_lstm())

    updates, state = jax.jit(tx.update)(params, tx.init(params))

    assert jax.tree.map(lambda leaf: leaf.dtype, updates) == {"a": jnp.bfloat16, "b": jnp.float16}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))
    cells, _ = state.carries[1]
    assert jax.tree.map(jnp.shape, cells) == {"a": (3, 3), "b": (3,)}


def test_composes_with_chain_and_multi_steps():
    params = {"a": jnp.ones(3)}
    chained = optax.chain(optax.clip_by_global_norm(1.0), l2l(_lstm()))
    found, _ = _run(optax.MultiSteps(chained, 2), params, 4)
    expected, _ = _run(l2l(_lstm()), params, 0)
    assert (found["a"] != expected["a"]).all()

    state = chained.init(params)
    doubled = optax.tree.map_params(chained, lambda leaf: leaf + 1.0, state)
    assert float(doubled[1].carries[0][0]["a"][0, 0]) == 1.0


# Files.


def test_saved_optimizer_is_loaded(tmp_path):
    saved = _lstm(grouping="conv_and_dense", log_sign_exponent=0.0, output_scale=0.5)

    save_lstm(tmp_path / "a.safetensors", saved)
    loaded = load_lstm(tmp_path / "a.safetensors")

    jax.tree.map(np.testing.assert_array_equal, dict(loaded.params), dict(saved.params))
    assert dataclasses.replace(loaded, params=saved.params) == saved


def test_invalid_arguments_raise(tmp_path):
    with pytest.raises(ValueError, match=r"'conv_and_dense' has the groups .*'all'"):
        LSTMOptimizer(_lstm().params, "conv_and_dense")
    with pytest.raises(ValueError, match="Unknown grouping 'none'"):
        LSTMOptimizer(_lstm().params, "none")
    with pytest.raises(FileNotFoundError, match="No LSTM optimizer 'none'"):
        load_lstm("none")
    with pytest.raises(ValueError, match="unroll=30 does not divide horizon=100"):
        BackpropagationConfig(unroll=30)


# Training.


def _quadratic_task():
    curvature = jnp.array([[2.0, 0.3], [0.3, 0.5]])

    def loss(params, batch):
        return 0.5 * params @ curvature @ params + 0.1 * jnp.sum(batch * params)

    return Task(
        "bowl",
        lambda key: jnp.array([1.0, -2.0]),
        lambda key: jax.random.normal(key, (2,)),
        loss,
        lambda params: loss(params, jnp.zeros(2)),
    )


def test_meta_gradient_matches_finite_differences():
    task, keys = _quadratic_task(), jax.random.split(jax.random.key(1), 7)
    start = _lstm(log_sign_exponent=0.0)
    flat, unravel = jax.flatten_util.ravel_pytree(start.params)
    begin = (task.init(keys[0]), l2l(start).init(task.init(keys[0])))

    @jax.jit
    def objective(flat):
        learned = dataclasses.replace(start, params=unravel(flat))
        return _bptt_trainer.unroll(l2l(learned), task, begin, keys, second_derivatives=True)[0]

    direction = jax.random.normal(jax.random.key(2), flat.shape)
    found = jax.grad(objective)(flat) @ direction
    ends = [objective(flat + sign * 1e-3 * direction) for sign in (1.0, -1.0)]

    np.testing.assert_allclose(found, (ends[0] - ends[1]) / 2e-3, rtol=2e-2)


def test_without_second_derivatives_gradients_are_constants():
    task, keys = _quadratic_task(), jax.random.split(jax.random.key(1), 3)
    start = _lstm(log_sign_exponent=0.0)
    params = task.init(keys[0])
    begin = (params, l2l(start).init(params))

    def objective(learned, second):
        learned = dataclasses.replace(start, params=learned)
        return _bptt_trainer.unroll(l2l(learned), task, begin, keys, second_derivatives=second)[0]

    def of_given_gradients(learned, gradients):
        tx = l2l(dataclasses.replace(start, params=learned))
        visited, state = [params], begin[1]
        for gradient in gradients:
            updates, state = tx.update(gradient, state)
            visited.append(visited[-1] + updates)
        return visited

    gradients = []
    for key in keys[:2]:
        here = of_given_gradients(start.params, gradients)[-1]
        gradients.append(jax.grad(task.loss)(here, task.batch(key)))

    def expected_objective(learned):
        _, first, second = of_given_gradients(learned, gradients)
        return task.loss(first, task.batch(keys[1])) + task.loss(second, task.batch(keys[2]))

    found = jax.grad(objective)(start.params, False)
    expected = jax.grad(expected_objective)(start.params)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, found, expected)
    full = jax.grad(objective)(start.params, True)
    differs = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), found, full)
    assert max(jax.tree.leaves(differs)) > 1e-4


def _short(**constants):
    """A small LSTM and a short training."""
    defaults = {"horizon": 10, "unroll": 5, "tasks": 4, "validation_tasks": 4}
    training = BackpropagationConfig(**(defaults | constants))
    return LSTMConfig(widths=(6,), log_sign_exponent=0.0, training=training)


def test_each_unroll_starts_from_the_end_of_the_last_one():
    family = l2l_tasks.quadratics(3)
    instances, keys = rollouts.draw(family, jax.random.split(jax.random.key(1), 2))
    found = []
    for unroll in (4, 12):
        # At a learning rate of zero, losses do not depend on the unroll length.
        config = _short(horizon=12, unroll=unroll, learning_rates=(0.0,))
        lstm = TrainableOptimizer("LSTM", config.transformation, config.init)
        trainer = _bptt_trainer.Trainer(lstm, config.training)
        _, losses = jax.jit(functools.partial(trainer.episode, family))(
            trainer.init(jax.random.key(0)), instances, keys
        )
        found.append(losses)

    np.testing.assert_allclose(*found, rtol=1e-4)


def test_training_improves_the_optimizer_on_quadratics():
    config = _short(
        horizon=20, unroll=10, tasks=16, learning_rates=(1e-2,), episodes=60, validate_every=60
    )
    result = train_lstm(l2l_tasks.quadratics(4), config, show_progress=False)

    before, after = (entry["final_loss"] for entry in result.history)
    assert after < 0.5 * before


def test_unrolls_that_diverge_are_skipped():
    config = BackpropagationConfig(
        horizon=20, unroll=10, episodes=2, validate_every=1, learning_rates=(1e-2,)
    )

    def init(key):
        del key
        return jnp.full((), 1e20)

    sgd = TrainableOptimizer("SGD", optax.sgd, init)
    result = bptt.train([l2l_tasks.quadratics()], sgd, config, show_progress=False)

    assert [entry["skipped"] for entry in result.history] == [0, 2, 4]
    assert result.params == np.float32(1e20)


def test_learning_rate_with_the_best_score_is_selected():
    config = _short(learning_rates=(1e-8, 1e-2), episodes=40)
    result = train_lstm(l2l_tasks.quadratics(4), config, show_progress=False)

    assert result.learning_rate == 1e-2


def test_resumed_training_gives_the_same_bits(tmp_path, monkeypatch):
    config = _short(learning_rates=(1e-2,), episodes=4, validate_every=2)
    family = l2l_tasks.quadratics(3)
    whole = train_lstm(family, config, show_progress=False, seed=3)

    class Killed(Exception):
        pass

    count, draw = itertools.count(), rollouts.draw

    def draw_four_times(*arguments):
        if next(count) == 4:  # The first draw is the validation's.
            raise Killed
        return draw(*arguments)

    monkeypatch.setattr(rollouts, "draw", draw_four_times)
    with pytest.raises(Killed):
        train_lstm(family, config, show_progress=False, seed=3, folder=tmp_path)
    monkeypatch.undo()
    resumed = train_lstm(family, config, show_progress=False, seed=3, folder=tmp_path)

    assert resumed.history == whole.history
    jax.tree.map(
        np.testing.assert_array_equal, dict(resumed.optimizer.params), dict(whole.optimizer.params)
    )


# Training tasks.


def test_initial_loss_of_quadratics_is_about_one():
    family = l2l_tasks.quadratics()
    instances, keys = rollouts.draw(family, jax.random.split(jax.random.key(0), 400))

    @jax.vmap
    def first_loss(instance, key):
        task = family.task(instance)
        return task.loss(task.init(key))

    losses = first_loss(instances, keys)
    np.testing.assert_allclose(losses.mean(), 1.0, atol=0.1)


def test_initial_loss_of_mnist_classifiers_is_chance():
    task = l2l_tasks.mnist_mlp().draw(jax.random.key(0))
    params = task.init(jax.random.key(1))

    loss = task.loss(params, task.batch(jax.random.key(2)))

    np.testing.assert_allclose(loss, np.log(10.0), atol=0.05)
