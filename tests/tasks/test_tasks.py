"""Task families: finite, positive, differentiable losses, and tasks that differ."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alphaopt_jax.tasks import networks
from alphaopt_jax.tasks.families import (
    _digits,
    _sequences,
    augmentation,
    distribution,
    supervised,
    synthetic,
)
from alphaopt_jax.tasks.task import Family, Task

pytestmark = pytest.mark.slow

_PLAIN = {family.name: family for family in distribution.plain_training_families()}
_TRAINING = distribution.training_families()
_VALIDATION = distribution.validation_families()
_UNAUGMENTED = {**_PLAIN, **_VALIDATION}

# Compiling takes nearly all of the time of these tests, so it is done without optimizations. Keys
# of type "unsafe_rbg" compile faster than the default ones.
_jit = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)


def _keys(number):
    return jax.random.split(jax.random.key(3, impl="unsafe_rbg"), number)


def _first_step(family, key):
    sample_key, init_key, batch_key = jax.random.split(key, 3)
    instance = family.sample(sample_key)
    task = family.task(instance)
    params = task.init(init_key)
    loss, gradient = jax.value_and_grad(task.loss)(params, task.batch(batch_key))
    return instance, params, loss, gradient, task.evaluation_loss(params)


def test_names_are_unique_and_training_and_validation_families_differ():
    assert len(distribution.plain_training_families()) == len(_PLAIN) == len(_TRAINING)
    assert len(_TRAINING) >= 18
    assert len(_VALIDATION) == 9
    assert not set(_TRAINING) & set(_VALIDATION)
    for name, family in {**_TRAINING, **_VALIDATION}.items():
        assert family.name == name


@pytest.mark.parametrize("name", _UNAUGMENTED)
def test_tasks_have_finite_positive_losses_and_nonzero_gradients_and_differ(name):
    first_steps = _jit(jax.vmap(functools.partial(_first_step, _UNAUGMENTED[name])))
    instance, params, loss, gradient, evaluation = first_steps(_keys(3))
    again, *_ = first_steps(_keys(3))

    for value in (loss, evaluation):
        assert value.shape == (3,)
        assert value.dtype == jnp.float32
        assert jnp.isfinite(value).all()
        assert (value > 0.0).all()
    jax.tree.map(np.testing.assert_array_equal, instance, again)
    assert any((leaf[0] != leaf[1]).any() for leaf in jax.tree.leaves(instance))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    largest = 20_000 if name == "large_digits_relu" else 8500
    assert sum(leaf[0].size for leaf in jax.tree.leaves(params)) <= largest
    if name == "mixture_zero_last":  # The zero kernel passes no gradient to earlier layers.
        gradient = gradient["Dense_2"]
    for leaf in jax.tree.leaves(gradient):
        assert jnp.isfinite(leaf).all()
        assert all(jnp.any(each != 0.0) for each in leaf)


@pytest.mark.parametrize(
    "name", ["quadratic", "conv_strided", "running_sum_recurrent", "markov_attention"]
)
def test_augmented_family_has_the_parameters_of_the_original_one(name):
    def shapes(family):
        return jax.eval_shape(functools.partial(_first_step, family), jax.random.key(0))

    _, plain, *_ = shapes(_PLAIN[name])
    _, params, loss, gradient, evaluation = shapes(_TRAINING[name])

    assert params == plain == gradient
    assert loss.shape == evaluation.shape == ()
    assert loss.dtype == evaluation.dtype == jnp.float32


@pytest.mark.parametrize("name", ["quadratic", "linear_regression", "raw_mixture_relu"])
def test_adam_lowers_the_evaluation_loss(name):
    family, tx = _PLAIN[name], optax.adam(1e-2)

    def train(key):
        sample_key, init_key, batch_key = jax.random.split(key, 3)
        task = family.draw(sample_key)
        params = task.init(init_key)

        def step(carry, key):
            params, state = carry
            gradient = jax.grad(task.loss)(params, task.batch(key))
            updates, state = tx.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        (trained, _), _ = jax.lax.scan(
            step, (params, tx.init(params)), jax.random.split(batch_key, 100)
        )
        return task.evaluation_loss(params), task.evaluation_loss(trained)

    before, after = _jit(jax.vmap(train))(_keys(8))

    assert jnp.isfinite(after).all()
    assert (after < before).sum() >= 7


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (4, 2)])
def test_convolution_by_slices_is_the_convolution(size, stride):
    generator = np.random.default_rng(0)
    images = generator.normal(size=(2, 7, 8, 3)).astype(np.float32)
    kernel = generator.normal(size=(size, size, 3, 5)).astype(np.float32)

    @_jit
    def both(images, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        expected = jax.lax.conv_general_dilated(
            images, kernel, (stride, stride), "SAME", dimension_numbers=numbers
        )
        return networks.convolve(images, kernel, stride), expected

    np.testing.assert_allclose(*both(images, kernel), rtol=1e-4, atol=1e-4)


def test_losses_by_hand():
    outputs, targets = jnp.array([[1.0], [3.0]]), jnp.array([[0.0], [0.0]])
    logits, labels = jnp.zeros((2, 4)), jnp.array([1, 2])

    np.testing.assert_allclose(supervised.squared_error(outputs, targets), 5.0)
    np.testing.assert_allclose(supervised.robust_error(outputs, targets), (0.5 + 0.9) / 2.0)
    np.testing.assert_allclose(supervised.cross_entropy(logits, labels), np.log(4.0), rtol=1e-6)
    np.testing.assert_allclose(supervised.one_hot_error(logits, labels), 0.25)
    np.testing.assert_allclose(  # odds of e for class 1: right once and wrong once
        supervised.binary_cross_entropy(jnp.ones((2, 1)), jnp.array([1, 0])),
        (np.log1p(np.exp(-1.0)) + np.log1p(np.exp(1.0))) / 2.0,
        rtol=1e-6,
    )


def test_label_noise_replaces_the_given_share():
    labels = jnp.zeros(20_000, jnp.int32)

    noisy = _jit(synthetic.add_label_noise, static_argnums=3)(_keys(1)[0], labels, 0.1, 5)

    # A fifth of the replacements are the right label again.
    np.testing.assert_allclose(jnp.mean(noisy != 0), 0.08, atol=0.01)
    assert int(noisy.max()) == 4


def test_running_sum_by_hand():
    source = _sequences.running_sums(features=1)
    parameters = _sequences.SumParameters(
        projection=jnp.array([2.0]),
        decay=jnp.array(0.5),
        input_scale=jnp.array(10.0),
        noise=jnp.array(0.0),
    )
    data = synthetic.GeneratedData(
        parameters, held_out=supervised.Batch(jnp.zeros(0), jnp.zeros(0))
    )

    inputs, targets = _jit(source.draw, static_argnums=2)(data, _keys(1)[0], 4)

    first, second = inputs[:, 0] / 10.0, inputs[:, 1] / 10.0
    np.testing.assert_allclose(targets[:, 0], 2.0 * first, rtol=1e-4)
    np.testing.assert_allclose(targets[:, 1], 2.0 * second + first, rtol=1e-4, atol=1e-5)


def test_delayed_symbols_are_translated_two_steps_later():
    source = _sequences.delayed_symbols(3, delay=2)
    parameters = _sequences.DelayParameters(
        translation=jnp.array([2, 0, 1]), input_scale=jnp.array(4.0), label_noise=jnp.array(0.0)
    )
    data = synthetic.GeneratedData(
        parameters, held_out=supervised.Batch(jnp.zeros(0), jnp.zeros(0))
    )

    inputs, targets = _jit(source.draw, static_argnums=2)(data, _keys(1)[0], 5)
    symbols = inputs.argmax(axis=-1)

    np.testing.assert_array_equal(targets[:, 2:], parameters.translation[symbols[:, :-2]])
    np.testing.assert_array_equal(targets[:, :2], 2)


def test_markov_chain_follows_its_transitions():
    source = _sequences.markov_chains(3)
    cycle = jnp.array([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])  # 0 -> 1 -> 2 -> 0
    data = synthetic.GeneratedData(cycle, held_out=supervised.Batch(jnp.zeros(0), jnp.zeros(0)))

    inputs, targets = _jit(source.draw, static_argnums=2)(data, _keys(1)[0], 6)

    assert inputs.shape == targets.shape == (6, 8)
    np.testing.assert_array_equal(targets, (inputs + 1) % 3)
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])


def test_digits_are_split_and_standardized():
    data = _jit(_digits.digits().sample)(_keys(1)[0])

    assert data.train.inputs.shape == (1437, 64)
    assert data.held_out.inputs.shape == (360, 64)
    # The standard deviation is the scale of the instance, whatever its rotation.
    deviation = data.train.inputs.std()
    scaled = data.train.inputs / deviation
    np.testing.assert_allclose(scaled.mean(), 0.0, atol=1e-1)
    np.testing.assert_allclose(jnp.square(scaled).sum() / 1437, 64.0, rtol=1e-2)


def _bowls():
    """The sum of squares of two leaves, initialized to 1 and 2."""

    def loss(params, batch=None):
        return jnp.sum(params["a"] ** 2) + jnp.sum(params["b"] ** 2)

    def init(key):
        return {"a": jnp.ones(2), "b": jnp.full((2, 2), 2.0)}

    return Family(
        "bowl", lambda key: jnp.zeros(()), lambda _: Task("bowl", init, lambda key: (), loss, loss)
    )


def test_scaled_loss_multiplies_both_losses():
    family = augmentation.scaled_loss(_bowls())
    task = family.task(augmentation.Augmented(jnp.zeros(()), jnp.array(3.0)))
    params = task.init(jax.random.key(0))

    np.testing.assert_allclose(task.loss(params, ()), 3.0 * 18.0)
    np.testing.assert_allclose(task.evaluation_loss(params), 3.0 * 18.0)


def test_reparametrized_starts_at_the_same_function_in_other_units():
    family = augmentation.reparametrized(_bowls())
    task = family.task(augmentation.Augmented(jnp.zeros(()), jnp.array([4.0, 0.5])))
    params = task.init(jax.random.key(0))
    gradient = jax.grad(task.loss)(params, ())

    np.testing.assert_allclose(params["a"], 0.25)
    np.testing.assert_allclose(params["b"], 4.0)
    np.testing.assert_allclose(task.loss(params, ()), 18.0)
    np.testing.assert_allclose(task.evaluation_loss(params), 18.0)
    np.testing.assert_allclose(gradient["a"], 2.0 * 1.0 * 4.0)
    np.testing.assert_allclose(gradient["b"], 2.0 * 2.0 * 0.5)


def test_noise_changes_the_gradient_and_keeps_the_loss_positive():
    family = augmentation.noisy_gradients(_bowls())
    task = family.task(augmentation.Augmented(jnp.zeros(()), jnp.array([1e-4, 1e3])))
    params = task.init(jax.random.key(0))
    batch = task.batch(jax.random.key(1))
    quiet = batch._replace(noise={"a": batch.noise["a"], "b": jnp.zeros((2, 2))})
    value, gradient = _jit(jax.value_and_grad(task.loss))(params, quiet)

    assert 0.0 < float(jnp.abs(quiet.noise["a"]).max()) < 1e-3
    np.testing.assert_allclose(value, 18.0 * (1.0 + quiet.noise["a"].sum()), rtol=1e-6)
    np.testing.assert_allclose(gradient["a"], 2.0 + 18.0 * quiet.noise["a"], rtol=1e-3)
    assert 9.0 <= task.loss(params, batch) <= 27.0
    np.testing.assert_allclose(task.evaluation_loss(params), 18.0)


def test_noise_level_is_relative_to_the_gradient_of_the_log_loss():
    family = augmentation.noisy_gradients(_bowls(), probability=1.0)
    levels = _jit(jax.vmap(family.sample))(jax.random.split(jax.random.key(0), 50)).scale

    np.testing.assert_allclose(levels[:, 1], 2.0 * levels[:, 0], rtol=1e-5)
    relative = levels[:, 0] / (2.0 / 18.0)
    assert 0.029 < float(relative.min()) < 0.1
    assert 0.5 < float(relative.max()) < 1.01


@pytest.mark.parametrize(
    ("augment", "unchanged", "bound"),
    [
        (augmentation.scaled_loss, 1.0, np.exp(4.0)),
        (augmentation.reparametrized, 1.0, np.exp(1.5)),
        (augmentation.noisy_gradients, 0.0, 2.0 / 9.0),
    ],
)
def test_about_half_of_the_instances_are_augmented(augment, unchanged, bound):
    instances = _jit(jax.vmap(augment(_bowls()).sample))(jax.random.split(jax.random.key(0), 200))
    scales = instances.scale.reshape(200, -1)

    assert 0.4 < float(jnp.mean((scales == unchanged).all(axis=1))) < 0.6
    assert float(scales.max()) <= bound * (1.0 + 1e-5)
    assert len(np.unique(scales[:, 0])) > 80
