"""The tasks of Li & Malik's two papers: their data and their losses."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.papers import li_malik_2016, li_malik_2017

pytestmark = pytest.mark.slow


def _instance(family, seed=0):
    return family.sample(jax.random.key(seed))


def test_the_loss_of_logistic_regression_is_that_of_the_paper():
    family = li_malik_2016.logistic_regression()
    data = _instance(family)
    params = jnp.array([1.0, -2.0, 0.5, 0.3])

    odds = np.asarray(data.inputs) @ np.array([1.0, -2.0, 0.5]) + 0.3
    signed = np.where(np.asarray(data.targets) == 1, odds, -odds)
    expected = np.log1p(np.exp(-signed)).mean() + 0.5 * 5e-4 * 5.25

    np.testing.assert_allclose(family.task(data).loss(params, None), expected, rtol=1e-5)
    assert data.targets.sum() == 50


def test_the_loss_of_robust_regression_is_bounded_and_that_of_the_paper():
    family = li_malik_2016.robust_regression()
    data = _instance(family)
    residuals = np.asarray(data.inputs).sum(axis=1) - 1.0 - np.asarray(data.targets)

    found = family.task(data).loss(jnp.array([1.0, 1.0, 1.0, -1.0]), None)

    np.testing.assert_allclose(found, (residuals**2 / (1 + residuals**2)).mean(), rtol=1e-5)
    np.testing.assert_allclose(family.task(data).loss(jnp.full(4, 1e6), None), 1.0, rtol=1e-3)


def test_each_group_of_robust_regression_has_its_own_line():
    data = _instance(li_malik_2016.robust_regression())
    inputs = np.c_[np.asarray(data.inputs), np.ones(100)]
    for group in np.split(np.arange(100), 4):
        _, residual, _, _ = np.linalg.lstsq(inputs[group], data.targets[group])
        assert np.sqrt(residual / 25) < 0.2  # The noise is 0.1.
    _, residual, _, _ = np.linalg.lstsq(inputs, data.targets)
    assert np.sqrt(residual / 100) > 0.5


def test_the_tiny_net_equals_its_formula_and_both_labels_occur():
    family = li_malik_2016.tiny_net()
    for seed in range(5):
        labels = np.asarray(_instance(family, seed).targets)
        assert set(labels) == {0, 1}
        assert all(len(set(group)) == 1 for group in np.split(labels, 4))

    data, params = _instance(family), jax.random.normal(jax.random.key(1), (12,))
    first, second = params[:4].reshape(2, 2), params[6:10].reshape(2, 2)
    logits = nn.relu(data.inputs @ first + params[4:6]) @ second + params[10:]
    fit = -jax.nn.log_softmax(logits)[jnp.arange(100), data.targets].mean()
    decay = 0.5 * 5e-4 * (jnp.sum(first**2) + jnp.sum(second**2))
    np.testing.assert_allclose(family.task(data).loss(params, None), fit + decay, rtol=1e-5)


def test_vectorized_rollouts_equal_single_ones():
    import optax

    family = li_malik_2016.logistic_regression()
    instances, keys = rollouts.draw(family, jax.random.split(jax.random.key(0), 6))

    losses = rollouts.rollouts(family, optax.sgd, 0.1, instances, keys, num_steps=30)

    assert losses.shape == (6, 31)
    assert (losses[:, -1] < losses[:, 0]).all()
    alone = rollouts.rollout(
        family.task(jax.tree.map(lambda leaf: leaf[2], instances)), optax.sgd(0.1), keys[2], 30
    )
    np.testing.assert_allclose(losses[2], alone, rtol=1e-4)


def test_projections_are_standardized_and_the_net_has_the_size_of_the_paper():
    family = li_malik_2017.projected_net("digits")
    data = _instance(family)

    np.testing.assert_allclose(data.inputs.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(data.inputs.std(axis=0), 1.0, atol=1e-3)
    task = family.task(data)
    params = task.init(jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 48 * 48 + 48 + 48 * 10 + 10
    assert task.batch(jax.random.key(1)).inputs.shape == (64, 48)
    # The digits have fewer rows than the limit: the objective includes all of them.
    whole = task.loss(params, li_malik_2017.Batch(data.inputs, data.targets))
    np.testing.assert_allclose(task.evaluation_loss(params), whole, rtol=1e-5)


def test_a_missing_data_set_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="'no_such_images' is not on this machine"):
        _instance(li_malik_2017.projected_net("no_such_images"))
