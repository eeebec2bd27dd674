"""Learned initial parameters: the four directions, and what they come to."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alphaopt_jax._storage import run_folder
from alphaopt_jax.baselines import maml
from alphaopt_jax.baselines.maml import InitializationConfig, Learned
from alphaopt_jax.tasks.omniglot.episodes import EpisodeTask
from alphaopt_jax.tasks.task import Family

pytestmark = pytest.mark.slow

_CURVATURES = jnp.array([1.0, 4.0])


def _bowls(spread=0.3):
    """Bowls whose minima lie about (2, -1); queries know the minimum, a batch nearly."""

    def task(minimum):
        def loss(params, batch):
            return 0.5 * jnp.sum(_CURVATURES * jnp.square(params - minimum - batch))

        def evaluation_loss(params):
            return loss(params, 0.0)

        return EpisodeTask(
            name="bowls",
            init=lambda key: jnp.zeros(2),
            batch=lambda key: 0.01 * jax.random.normal(key, (2,)),
            loss=loss,
            evaluation_loss=evaluation_loss,
            accuracy=lambda params: jnp.exp(-evaluation_loss(params)),
        )

    def sample(key):
        return jnp.array([2.0, -1.0]) + spread * jax.random.normal(key, (2,))

    return Family("bowls", sample, task)


def _gradient(direction, rates, steps=3):
    task = _bowls().task(jnp.array([2.0, -1.0]))
    learned = Learned(jnp.array([0.5, 0.5]), rates)
    keys = jax.random.split(jax.random.key(0), steps)

    def make(rates):
        return maml.scale_by_rates(rates)

    return (
        task,
        learned,
        make,
        keys,
        maml.outer_gradient(task, make, learned, keys, direction),
    )


def test_second_order_is_the_gradient_of_what_comes_after_training():
    task, learned, make, keys, gradient = _gradient("second_order", jnp.array([0.1, 0.05]))

    def after(learned):
        return float(task.evaluation_loss(maml.adapt(task, make, learned, keys)))

    for field in ("params", "made_of"):
        for index in range(2):
            nudge = jnp.zeros(2).at[index].set(1e-2)
            up, down = (
                after(learned._replace(**{field: getattr(learned, field) + sign * nudge}))
                for sign in (1, -1)
            )
            assert float(getattr(gradient, field)[index]) == pytest.approx(
                (up - down) / 2e-2, rel=0.02
            )


def test_first_order_is_the_gradient_at_the_end():
    task, learned, make, keys, gradient = _gradient("first_order", jnp.array([0.1, 0.05]))

    end = maml.adapt(task, make, learned, keys)
    np.testing.assert_allclose(gradient.params, jax.grad(task.evaluation_loss)(end), rtol=1e-5)
    np.testing.assert_array_equal(gradient.made_of, 0.0)


def test_reptile_goes_to_the_end():
    task, learned, make, keys, gradient = _gradient("end", jnp.array([0.1, 0.05]))

    end = maml.adapt(task, make, learned, keys)
    np.testing.assert_allclose(learned.params - gradient.params, end, rtol=1e-6)


def test_training_of_an_episode_is_gradient_descent():
    task, learned, make, keys, _ = _gradient("end", jnp.array([0.1, 0.05]))

    end = maml.adapt(task, make, learned, keys)

    params = learned.params
    for key in keys:
        params = params - learned.made_of * jax.grad(task.loss)(params, task.batch(key))
    np.testing.assert_allclose(end, params, rtol=1e-5)


@pytest.mark.parametrize(
    ("direction", "learning_rate"), [("end", 0.3), ("first_order", 0.1), ("second_order", 0.1)]
)
def test_all_come_to_where_minima_lie(direction, learning_rate):
    config = InitializationConfig(
        direction, 2, episodes=400, learning_rate=learning_rate, validate_every=200
    )

    result = maml.train_initialization(
        _bowls(), _bowls(), lambda _: optax.sgd(0.1), lambda _: {}, config, label="x", show=False
    )

    np.testing.assert_allclose(result.learned.params, [2.0, -1.0], atol=0.15)
    assert [line["round"] for line in result.history] == [0, 200, 400]
    assert result.accuracy == max(line["accuracy"] for line in result.history)
    assert result.accuracy > result.history[0]["accuracy"] + 0.3


def test_meta_sgd_finds_a_rate_for_each_parameter():
    """One step from the middle reaches the minimum if the rate is one over the curvature."""
    config = InitializationConfig(
        "second_order", 1, episodes=2000, learning_rate=0.03, validate_every=500
    )

    result = maml.train_initialization(
        _bowls(spread=1.0),
        _bowls(spread=1.0),
        maml.scale_by_rates,
        lambda params: jnp.full_like(params, 0.1),
        config,
        label="Meta-SGD",
        show=False,
    )

    np.testing.assert_allclose(result.learned.made_of, 1.0 / _CURVATURES, rtol=0.1)


def test_one_rate_serves_a_whole_tree():
    tx = maml.scale_by_rates(jnp.asarray(0.5))
    grads = {"a": jnp.ones(2), "b": jnp.ones((2, 2))}

    updates, _ = tx.update(grads, tx.init(grads))

    jax.tree.map(lambda update: np.testing.assert_array_equal(update, -0.5), updates)


def _run(folder=None):
    config = InitializationConfig("first_order", 2, episodes=16, validate_every=8)
    return maml.train_initialization(
        _bowls(), _bowls(), lambda _: optax.sgd(0.1), lambda _: {}, config,
        label="x", folder=folder, show=False,
    )  # fmt: skip


def test_interrupted_learning_ends_with_the_same(tmp_path, monkeypatch):
    save = run_folder.Store.save

    def interrupted(self, number, state):
        if number == 16:
            raise KeyboardInterrupt
        save(self, number, state)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder.Store, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _run(tmp_path)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"0", "8"}

    whole, resumed = _run(), _run(tmp_path)

    assert resumed.history == whole.history
    np.testing.assert_array_equal(resumed.learned.params, whole.learned.params)


def test_what_is_finished_is_not_validated_again(tmp_path, monkeypatch):
    whole = _run(tmp_path)
    monkeypatch.setattr(maml, "_validate", None)

    again = _run(tmp_path)

    assert (again.history, again.accuracy) == (whole.history, whole.accuracy)
    np.testing.assert_array_equal(again.learned.params, whole.learned.params)


def test_moves_that_do_not_fill_the_time_are_refused():
    with pytest.raises(ValueError, match="Moves of 3 episodes do not fill the 10"):
        InitializationConfig("end", 5, episodes_at_once=3, validate_every=10)


def test_side_by_side_episodes_come_to_the_same_as_in_turn(monkeypatch):
    in_turn = _run()
    monkeypatch.setattr(jax, "default_backend", lambda: "an accelerator")

    side_by_side = _run()

    np.testing.assert_allclose(side_by_side.learned.params, in_turn.learned.params, rtol=1e-5)
    assert side_by_side.accuracy == in_turn.accuracy
