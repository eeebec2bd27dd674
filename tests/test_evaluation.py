"""Training by `evaluation` equals a plain optax loop, for many runs at once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alphaopt_jax import evaluation
from alphaopt_jax.tasks.task import Family, Task


def _regression(instance):
    """A linear regression on the inputs `instance`, `float32[64, 4]`."""

    def loss(params, batch):
        return jnp.mean(jnp.square(batch @ params["weights"] + params["bias"] - 1.0))

    def init(key):
        return {"weights": jax.random.normal(key, (4,)), "bias": jnp.zeros(())}

    def batch(key):
        return instance[jax.random.randint(key, (8,), 0, 64)]

    return Task("regression", init, batch, loss, lambda params: loss(params, instance))


def _sample(key):
    return jax.random.normal(key, (64, 4))


_FAMILY = Family("regression", _sample, _regression)


def test_training_equals_a_plain_loop():
    task = _FAMILY.draw(jax.random.key(0))
    optimizer = optax.adam(0.03)
    steps = 130  # More than one chunk, and not a multiple of it.

    outcome = evaluation.train(_FAMILY, optimizer, steps, seeds=(0, 1))

    @jax.jit
    def step(params, state, key):
        loss, grads = jax.value_and_grad(task.loss)(params, task.batch(key))
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    for row, seed in enumerate((0, 1)):
        init_key, stream = jax.random.split(jax.random.key(seed))
        params = task.init(init_key)
        state = optimizer.init(params)
        losses = []
        for index in range(steps):
            params, state, loss = step(params, state, jax.random.fold_in(stream, index))
            losses.append(float(loss))
        np.testing.assert_allclose(outcome.curves[row], losses, rtol=1e-4, atol=1e-6)
        expected = task.evaluation_loss(params)
        np.testing.assert_allclose(outcome.final_evaluation_losses[row], expected, rtol=1e-4)
    assert outcome.num_updates == steps
    assert outcome.train_losses.shape == outcome.evaluation_losses.shape == (2, 1)
    assert outcome.curves.dtype == np.float32
    assert (outcome.final_train_losses < outcome.initial_losses).all()


def test_many_rates_equal_separate_runs():
    rates = (1e-3, 0.1)

    together = evaluation.train_rates(
        _FAMILY, lambda rate: optax.sgd(rate, momentum=0.9), rates, 40, (0, 1)
    )

    assert together.curves.shape == (2, 2, 40)
    for column, rate in enumerate(rates):
        alone = evaluation.train(_FAMILY, optax.sgd(rate, momentum=0.9), 40, (0, 1))
        np.testing.assert_allclose(together.curves[:, column], alone.curves, rtol=1e-5)
        np.testing.assert_allclose(together.train_losses[:, column], alone.train_losses, rtol=1e-5)
        np.testing.assert_allclose(together.initial_losses, alone.initial_losses, rtol=1e-6)


def test_sequential_runs_equal_vectorized_ones_and_skip_rare_branches():
    def update(updates, state, params=None):
        def rare(state):
            jax.debug.callback(lambda: calls.append(1))
            return state

        state = jax.lax.cond(state % 10 == 9, rare, lambda state: state, state)
        return jax.tree.map(lambda leaf: -0.05 * leaf, updates), state + 1

    calls = []
    optimizer = optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)
    options = evaluation.TrainingOptions(vectorize=False)
    one_by_one = evaluation.train(_FAMILY, optimizer, 40, (0, 1), options)
    jax.effects_barrier()
    together = evaluation.train(_FAMILY, optax.sgd(0.05), 40, (0, 1))

    assert len(calls) == 2 * 4
    for found, expected in zip(one_by_one[:-1], together[:-1], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_checkpoint_equals_the_end_of_a_shorter_run():
    seen = []
    optimizer = optax.adam(0.01)

    options = evaluation.TrainingOptions(checkpoints=(30,), on_progress=seen.append)
    long = evaluation.train(_FAMILY, optimizer, 150, (0, 1), options)
    short = evaluation.train(_FAMILY, optimizer, 30, (0, 1))

    assert long.checkpoints == (30, 150)
    assert seen == [30, 130, 150]
    np.testing.assert_allclose(long.train_losses[:, 0], short.final_train_losses, rtol=1e-6)
    np.testing.assert_allclose(
        long.evaluation_losses[:, 0], short.final_evaluation_losses, rtol=1e-6
    )


def test_optimizers_get_the_loss_and_may_be_evaluated_at_other_parameters():
    def init(params):
        return jnp.zeros(())

    def update(updates, state, params=None, *, value, **extra):
        return jax.tree.map(jnp.zeros_like, updates), state + value

    watcher = optax.GradientTransformationExtraArgs(init, update)
    task = _FAMILY.draw(jax.random.key(0))

    outcome = evaluation.train(
        task,
        watcher,
        10,
        (0,),
        evaluation.TrainingOptions(
            evaluation_params=lambda state, params: {"weights": jnp.zeros(4), "bias": state}
        ),
    )

    total = outcome.curves.sum()
    np.testing.assert_allclose(outcome.final_evaluation_losses, (total - 1.0) ** 2, rtol=1e-5)


def test_data_of_a_family_is_not_a_compiled_constant():
    def task(instance):
        assert isinstance(instance, jax.core.Tracer)
        return _regression(instance)

    evaluation.train(Family("traced", _sample, task), optax.sgd(0.01), 2, (0,))


def test_non_finite_losses_are_kept_and_counted():
    rows = evaluation.evaluate(
        {"too fast": lambda num_steps: optax.sgd(1e6), "good": lambda num_steps: optax.sgd(0.05)},
        [_FAMILY],
        horizons=[30],
        seeds=(0, 1),
    )

    too_fast, good = rows
    assert too_fast.diverged == 2
    assert not np.isfinite(too_fast.train_loss)
    assert (good.diverged, good.task, good.num_steps) == (0, "regression", 30)
    assert good.train_loss == pytest.approx(good.train_losses.mean())


def test_factories_get_the_horizon_and_rows_are_nested_by_task():
    horizons = []

    def optimizer_fn(num_steps):
        horizons.append(num_steps)
        return optax.sgd(0.01)

    seen = []
    rows = evaluation.evaluate({"sgd": optimizer_fn}, [_FAMILY], [2, 3], (0, 1), on_row=seen.append)

    assert horizons == [2, 3] == [row.num_steps for row in rows]
    assert len(seen) == 2


def test_exponential_average_by_hand_and_after_an_overflow():
    curves = np.array([[4.0, 0.0, 2.0], [1.0, np.nan, 1.0]])

    averages = evaluation.exponential_average(curves, decay=0.75)

    np.testing.assert_allclose(averages[0], [4.0, 3.0, 2.75])
    assert averages[1, 0] == 1.0
    assert np.isnan(averages[1, 1:]).all()


@pytest.mark.parametrize(
    ("seeds", "checkpoints", "sentence"),
    [
        ((), (), "Nothing to run"),
        ((0,), (0,), r"must be in 1\.\.5"),
        ((0,), (6,), r"must be in 1\.\.5"),
    ],
)
def test_invalid_arguments_are_refused(seeds, checkpoints, sentence):
    options = evaluation.TrainingOptions(checkpoints=checkpoints)
    with pytest.raises(ValueError, match=sentence):
        evaluation.train(_FAMILY, optax.sgd(0.1), 5, seeds, options)
