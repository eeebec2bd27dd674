"""Learned initial parameters: meta-gradients of the four algorithms, and their training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alphaopt_jax._storage import run_folder
from alphaopt_jax.baselines import _inner_loop, maml
from alphaopt_jax.baselines.maml import Families, InitializationConfig, InnerOptimizer, Learned
from alphaopt_jax.tasks.omniglot.episodes import EpisodeTask
from alphaopt_jax.tasks.task import Family

pytestmark = pytest.mark.slow

_CURVATURES = jnp.array([1.0, 4.0])
_SGD = InnerOptimizer("SGD", lambda _: optax.sgd(0.1))


def _bowls(spread=0.3):
    """Quadratics with minima around (2, -1); batches add noise to the minimum, queries do not."""

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


def _gradient(algorithm, rates, steps=3):
    task = _bowls().task(jnp.array([2.0, -1.0]))
    learned = Learned(jnp.array([0.5, 0.5]), rates)
    keys = jax.random.split(jax.random.key(0), steps)

    gradient = _inner_loop.meta_gradient(task, maml.scale_by_rates, learned, keys, algorithm)
    return task, learned, keys, gradient


def test_maml_gradient_matches_finite_differences():
    task, learned, keys, gradient = _gradient("maml", jnp.array([0.1, 0.05]))

    def after(learned):
        return float(
            task.evaluation_loss(_inner_loop.adapt(task, maml.scale_by_rates, learned, keys))
        )

    for field in ("params", "optimizer_params"):
        for index in range(2):
            nudge = jnp.zeros(2).at[index].set(1e-2)
            up, down = (
                after(learned._replace(**{field: getattr(learned, field) + sign * nudge}))
                for sign in (1, -1)
            )
            assert float(getattr(gradient, field)[index]) == pytest.approx(
                (up - down) / 2e-2, rel=0.02
            )


def test_first_order_maml_gradient_is_that_at_the_trained_parameters():
    task, learned, keys, gradient = _gradient("fomaml", jnp.array([0.1, 0.05]))

    end = _inner_loop.adapt(task, maml.scale_by_rates, learned, keys)
    np.testing.assert_allclose(gradient.params, jax.grad(task.evaluation_loss)(end), rtol=1e-5)
    np.testing.assert_array_equal(gradient.optimizer_params, 0.0)


def test_reptile_moves_to_the_trained_parameters():
    task, learned, keys, gradient = _gradient("reptile", jnp.array([0.1, 0.05]))

    end = _inner_loop.adapt(task, maml.scale_by_rates, learned, keys)
    np.testing.assert_allclose(learned.params - gradient.params, end, rtol=1e-6)


def test_adaptation_is_gradient_descent():
    task, learned, keys, _ = _gradient("reptile", jnp.array([0.1, 0.05]))

    end = _inner_loop.adapt(task, maml.scale_by_rates, learned, keys)

    params = learned.params
    for key in keys:
        params = params - learned.optimizer_params * jax.grad(task.loss)(params, task.batch(key))
    np.testing.assert_allclose(end, params, rtol=1e-5)


@pytest.mark.parametrize(
    ("algorithm", "learning_rate"), [("reptile", 0.3), ("fomaml", 0.1), ("maml", 0.1)]
)
def test_initial_parameters_converge_to_the_mean_minimum(algorithm, learning_rate):
    config = InitializationConfig(
        algorithm, 2, episodes=400, learning_rate=learning_rate, validate_every=200
    )

    result = maml.train_initialization(
        Families(_bowls(), _bowls()), _SGD, config, show_progress=False
    )

    np.testing.assert_allclose(result.learned.params, [2.0, -1.0], atol=0.15)
    assert [line["round"] for line in result.history] == [0, 200, 400]
    assert result.accuracy == max(line["accuracy"] for line in result.history)
    assert result.accuracy > result.history[0]["accuracy"] + 0.3


def test_meta_sgd_learns_a_rate_for_each_parameter():
    """One step reaches the minimum if the rate is the inverse curvature."""
    config = InitializationConfig("maml", 1, episodes=2000, learning_rate=0.03, validate_every=500)

    result = maml.train_initialization(
        Families(_bowls(spread=1.0), _bowls(spread=1.0)),
        InnerOptimizer(
            "Meta-SGD", maml.scale_by_rates, init=lambda params: jnp.full_like(params, 0.1)
        ),
        config,
        show_progress=False,
    )

    np.testing.assert_allclose(result.learned.optimizer_params, 1.0 / _CURVATURES, rtol=0.1)


def test_one_rate_applies_to_a_whole_tree():
    tx = maml.scale_by_rates(jnp.asarray(0.5))
    grads = {"a": jnp.ones(2), "b": jnp.ones((2, 2))}

    updates, _ = tx.update(grads, tx.init(grads))

    jax.tree.map(lambda update: np.testing.assert_array_equal(update, -0.5), updates)


def _run(folder=None):
    config = InitializationConfig("fomaml", 2, episodes=16, validate_every=8)
    families = Families(_bowls(), _bowls())
    return maml.train_initialization(families, _SGD, config, folder=folder, show_progress=False)


def test_resumed_training_gives_the_same_parameters(tmp_path, monkeypatch):
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


def test_finished_training_is_not_validated_again(tmp_path, monkeypatch):
    whole = _run(tmp_path)
    monkeypatch.setattr(maml, "_validate", None)

    again = _run(tmp_path)

    assert (again.history, again.accuracy) == (whole.history, whole.accuracy)
    np.testing.assert_array_equal(again.learned.params, whole.learned.params)


def test_validations_must_fall_between_updates():
    with pytest.raises(
        ValueError, match="validate_every=10 is not a multiple of meta_batch_size=3"
    ):
        InitializationConfig("reptile", 5, meta_batch_size=3, validate_every=10)


def test_vectorized_episodes_give_the_same_result(monkeypatch):
    sequential = _run()
    monkeypatch.setattr(jax, "default_backend", lambda: "an accelerator")

    vectorized = _run()

    np.testing.assert_allclose(vectorized.learned.params, sequential.learned.params, rtol=1e-5)
    assert vectorized.accuracy == sequential.accuracy
