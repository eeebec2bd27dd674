"""Observations equal numbers computed by hand, and do not depend on constants of the task."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alphaopt_jax import AlphaOptConfig
from alphaopt_jax._agent import observation, sampling, statistics
from alphaopt_jax._agent.history import History, LossHistory
from alphaopt_jax._agent.leaves import FlatLeaves
from alphaopt_jax._agent.schedule import Clock

_CONFIG = AlphaOptConfig(
    gradient_decay=0.5, squared_gradient_decay=0.5, epsilon=1e-12, min_rms=0.02
)


class _View(NamedTuple):
    normalized: statistics.Normalized
    statistics: statistics.LeafStatistics
    features: tuple[jax.Array, ...]
    context: jax.Array


def _accumulated(param, grads, config=_CONFIG):
    param = jnp.asarray(param, jnp.float32)
    leaf = statistics.Coordinates(param, *(jnp.zeros_like(param) for _ in range(3)))
    for grad in grads:
        leaf = statistics.accumulate(
            param, jnp.asarray(grad, jnp.float32), leaf.first_moment, leaf.second_moment, config
        )
    return leaf


def _losses(losses):
    history = LossHistory.empty()
    for loss in losses:
        history = history.append(jnp.asarray(loss, jnp.float32))
    return history


def _observe(param, grads, losses=(), num_steps=None, config=_CONFIG):
    """The observation of one leaf, all of whose parameters are sampled."""
    leaf = _accumulated(param, grads, config)
    sampled = sampling.of_shapes([leaf.param.shape])
    observed = observation.observe(
        statistics.Coordinates(*(sampling.read([each], sampled) for each in leaf)),
        sampled,
        History.empty(1)._replace(loss=_losses(losses)),
        Clock(jnp.asarray(len(grads), jnp.float32), num_steps, 1.0),
        config,
    )
    param, normalized, leaf_statistics, context = jax.tree.map(
        lambda each: each[0],
        (
            observed.coordinates.param,
            observed.normalized,
            observed.statistics,
            observed.context,
        ),
    )
    features = observation.coordinate_features(param, normalized, leaf_statistics)
    return _View(normalized, leaf_statistics, features, context)


def test_both_layouts_of_leaves_give_the_same_observation():
    params = {"b": jnp.arange(3.0), "w": jnp.arange(8.0).reshape(2, 4) - 3.0}
    leaves = jax.tree.leaves(params)
    sampled, flat = sampling.of_shapes([leaf.shape for leaf in leaves]), FlatLeaves.of(params)
    history, clock = History.empty(2), Clock(jnp.asarray(1.0), 10, 30.0)

    def observe(arrays, layout):
        grads = jax.tree.map(jnp.cos, arrays)
        zeros = jnp.zeros_like(arrays)
        coordinates = statistics.accumulate(arrays, grads, zeros, zeros, _CONFIG)
        return observation.observe(coordinates, layout, history, clock, _CONFIG)

    of_sample = observe(sampling.read(leaves, sampled), sampled)
    of_vector = observe(jnp.concatenate([jnp.ravel(leaf) for leaf in leaves]), flat)

    np.testing.assert_allclose(of_vector.leaf_features, of_sample.leaf_features, rtol=1e-5)
    assert of_sample.leaf_features.shape == (2, observation.NUM_FEATURES - 5)


def test_moments_are_corrected_for_their_start():
    # m: 0.5 -> 0.25 + 1.5 = 1.75; over 1 - 0.25: 2.3333.
    # v: 0.5 -> 0.25 + 4.5 = 4.75; over 0.75: 6.3333, whose root is 2.51661.
    normalized = _observe([0.0], [[1.0], [3.0]]).normalized

    np.testing.assert_allclose(normalized.second_moment, [6.333333], rtol=1e-6)
    np.testing.assert_allclose(normalized.gradient, [1.192079], rtol=1e-5)
    np.testing.assert_allclose(normalized.momentum, [0.927173], rtol=1e-5)


def test_features_of_a_first_step_equal_those_computed_by_hand():
    view = _observe([3.0, 4.0], [[1.0, -2.0]])

    # After one gradient m / √v and g / √v are its sign. The root mean square of (3, 4) is √12.5;
    # the mean of the squared gradients is 2.5.
    root = np.sqrt(12.5)
    np.testing.assert_allclose(view.statistics.scale, root, rtol=1e-6)
    np.testing.assert_allclose(view.statistics.second_moment, 2.5, rtol=1e-6)
    expected = [
        [1.0, -1.0],
        [1.0, -1.0],
        [1.0, 1.0],
        [0.15 * np.log(1.0 / 2.5), 0.15 * np.log(4.0 / 2.5)],
        [3.0 / root, 4.0 / root],
    ]
    np.testing.assert_allclose(jnp.stack(view.features), expected, rtol=1e-5)
    context = [3.0, 3.0, 0.0, 0.2 * np.log(root), 0.0, np.tanh(-1.0), 0.0, 0.0]
    np.testing.assert_allclose(view.context, context, rtol=1e-5, atol=1e-7)


def test_context_names_and_values_are_as_many():
    view = _observe(jnp.ones((2, 3)), [jnp.ones((2, 3))])

    assert len(view.features) == len(observation.COORDINATE_FEATURES)
    assert view.context.shape == (len(observation.CONTEXT_FEATURES),)
    assert view.context[observation.CONTEXT_FEATURES.index("is a matrix")] == 1.0


def test_loss_history_equals_that_computed_by_hand():
    history = _losses((2.0, 1.0))

    expected = LossHistory(
        fast=0.9 * 2 + 0.1,
        slow=0.99 * 2 + 0.01,
        spread=0.01 * (1 - 1.99) ** 2,
        medium=1.5,
        noise=0.5 * (1.0 - 2.0) ** 2,
        lowest=1.9,
        observed=2.0,
    )
    np.testing.assert_allclose(history, expected, rtol=1e-5)
    trend = _observe([1.0], [[1.0]], (2.0, 1.0)).context[4]
    np.testing.assert_allclose(trend, (1.9 - 1.99) / 0.099, rtol=1e-4)


@pytest.mark.parametrize(
    ("steps", "to_go", "end"), [(5, 0.0, np.exp(-4.0)), (10, 1.0, 1.0), (12, 1.0, 1.0)]
)
def test_time_to_go_counts_to_the_planned_end_and_stays_there(steps, to_go, end):
    context = _observe([1.0], [[1.0]] * steps, num_steps=10).context

    np.testing.assert_allclose(context[-2:], [to_go, end], rtol=1e-5, atol=1e-6)


def test_scale_has_a_floor_and_empty_leaves_are_finite():
    zeros = _observe(jnp.zeros(3), [jnp.zeros(3)])
    empty = _observe(jnp.zeros((0, 2)), [jnp.zeros((0, 2))])

    np.testing.assert_allclose(zeros.statistics.scale, _CONFIG.min_rms)
    for view in (zeros, empty):
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(view))


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scale_of_the_loss_does_not_show(scale):
    config = AlphaOptConfig()
    grads = jax.random.normal(jax.random.key(0), (5, 4))
    losses = (5.0, 4.0, 4.5, 3.0, 2.0)
    param = jnp.array([1.0, -2.0, 0.5, 3.0])

    seen = _observe(param, grads, losses, config=config)
    scaled = _observe(param, scale * grads, [scale * loss for loss in losses], config=config)

    np.testing.assert_allclose(
        jnp.stack(scaled.features), jnp.stack(seen.features), rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(scaled.context, seen.context, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", [0.1, 1e4])
def test_of_the_scale_of_a_leaf_only_its_logarithm_shows(scale):
    grads, param = jax.random.normal(jax.random.key(0), (5, 4)), jnp.array([1.0, -2.0, 0.5, 3.0])

    seen = _observe(param, grads, (3.0, 2.0))
    scaled = _observe(scale * param, grads / scale, (3.0, 2.0))

    np.testing.assert_allclose(jnp.stack(scaled.features), jnp.stack(seen.features), atol=1e-4)
    log_scale = observation.CONTEXT_FEATURES.index("log scale of the leaf")
    difference = np.array(scaled.context - seen.context)
    np.testing.assert_allclose(difference[log_scale], 0.2 * np.log(scale), rtol=1e-4)
    np.testing.assert_allclose(np.delete(difference, log_scale), 0.0, atol=1e-4)


def test_a_shift_of_the_loss_does_not_show():
    seen = _observe([1.0], [[1.0]], (3.0, 2.0, 2.5))
    shifted = _observe([1.0], [[1.0]], (103.0, 102.0, 102.5))

    np.testing.assert_allclose(shifted.context, seen.context, atol=1e-3)


def test_a_loss_whose_square_overflows_leaves_everything_finite():
    assert np.isfinite(_losses((1.0, 3e38, -3e38, 1.0, 1.0))).all()


def _autocorrelation(grads):
    """Of a leaf with these gradients, by the default decays."""
    view = _observe(grads[-1], grads, config=AlphaOptConfig())
    return view.statistics.gradient_autocorrelation


def test_autocorrelation_is_zero_for_a_first_gradient_and_for_noise():
    first = _autocorrelation(jnp.ones((1, 4)))
    noise = _autocorrelation(jax.random.normal(jax.random.key(0), (300, 20_000)))

    np.testing.assert_allclose(first, 0.0, atol=1e-6)
    np.testing.assert_allclose(noise, 0.0, atol=0.01)  # A standard deviation is about 0.002.


def test_autocorrelation_is_positive_for_constant_and_negative_for_alternating_gradients():
    constant = _autocorrelation(jnp.ones((300, 4)))
    alternating = _autocorrelation(jnp.ones((300, 4)) * (-1.0) ** jnp.arange(300)[:, None])

    # The share of earlier gradients in the momentum: 0.9, and their alternating sum.
    np.testing.assert_allclose(constant, 0.9, rtol=1e-4)
    np.testing.assert_allclose(alternating, -0.9 * 0.1 / 1.9, rtol=1e-3)


def _history_features(steps, losses, num_steps=None):
    """From (autocorrelation, scale) of one leaf at each step to the named features at the end."""

    def of_leaf(autocorrelation, scale):
        values = (scale, 1.0, 0.1, 0.0, autocorrelation)
        return statistics.LeafStatistics(*(jnp.array([each], jnp.float32) for each in values))

    history = History.empty(1)._replace(loss=_losses(losses))
    for number, step in enumerate(steps, 1):
        leaves = history.leaves.update(of_leaf(*step), jnp.asarray(number, jnp.float32))
        history = history._replace(leaves=leaves)
    layout = FlatLeaves.of(jnp.zeros((32, 1)))
    clock = Clock(jnp.asarray(len(steps), jnp.float32), num_steps, 1.0)
    features = observation.history_features(
        of_leaf(*steps[-1]), layout, history, clock, AlphaOptConfig()
    )
    return dict(zip(observation.HISTORY_FEATURES, features[0].tolist(), strict=True))


def test_history_features_equal_those_computed_by_hand():
    features = _history_features([(0.3, 2.0), (0.1, 4.0)], losses=(1.0, 3.0), num_steps=100)

    autocorrelation = 3.0 * 0.2 / np.sqrt(0.21)  # Of the average of both steps.
    expected = {
        "autocorrelation of the leaf's gradients": autocorrelation,
        "slow average of the autocorrelation": autocorrelation,
        "autocorrelation of the whole model's gradients": autocorrelation,
        "slow average of the whole model's autocorrelation": autocorrelation,
        "log of the momentum's energy relative to noise": np.log(0.101 * 19.0),
        "recent log rate of the leaf": 0.0,
        "log of the gradient's size relative to the first steps": 0.0,
        "log of the leaf's scale relative to the first step": np.log(2.0),
        # The fast average rose from 1 to 1.2; the 3 was a surprise of 2, in one step of two.
        "recent trend of the loss": (1.2 - 2.0) / np.sqrt(0.5 * 2.0**2),
        "loss above its lowest": 0.2 / np.sqrt(0.5 * 2.0**2),
        "log of the inputs of a unit": 0.5 * np.log(2.0),
        "log of the number of leaves": 0.5 * np.log(1.0 / 6.0),
        "horizon is known": 1.0,
        "log of the horizon": 0.5 * np.log(100.0) - 3.0,
    }
    assert features.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(features[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_history_features_are_bounded_for_any_history():
    features = _history_features([(1.0, 1e-6), (-1e9, 1e9)], losses=(1.0, 1e30))

    assert all(-3.0 <= value <= 3.0 for value in features.values())


@pytest.mark.parametrize(
    ("shape", "inputs"), [((), 1), ((7,), 1), ((5, 3), 5), ((3, 3, 4, 8), 36), ((0, 2), 1)]
)
def test_inputs_of_a_unit_are_all_axes_but_the_last(shape, inputs):
    assert FlatLeaves.of(jnp.zeros(shape)).fan_in == [inputs]
