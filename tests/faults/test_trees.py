"""Parameters of any dtype and tree structure train or are rejected; NaN steps are counted."""

import functools
import os
from typing import NamedTuple

from flax.core import FrozenDict
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alphaopt_jax as alphaopt
from tests.faults import course

_NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
_NAN_STEPS = 5
_OPTIMIZERS = {
    "frozen": alphaopt.alphaopt(),
    "learning": alphaopt.alphaopt(learn=True),
    "fresh": alphaopt.alphaopt(agent=None),
}


def _cast(params, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def _assert_continues_after_nan(clean, spoiled, nan_steps=_NAN_STEPS):
    """NaN steps are counted and change nothing; the other steps are those of the clean run."""
    assert clean.finite.all()
    assert spoiled.finite.all()
    assert alphaopt.metrics(clean.state)["updates_skipped"] == 0
    assert alphaopt.metrics(spoiled.state)["updates_skipped"] == nan_steps
    first, after = course.FIRST, course.FIRST + nan_steps
    np.testing.assert_array_equal(spoiled.losses[first:after], clean.losses[first])
    np.testing.assert_allclose(spoiled.losses[after:], clean.losses[first:-nan_steps], rtol=1e-5)


# Dtypes.


@functools.cache
def _in_float32(name):
    return course.trainer(_OPTIMIZERS[name], course.regression)(course.init_params())


@pytest.mark.parametrize(
    "name",
    ["frozen", *(pytest.param(name, marks=pytest.mark.slow) for name in ("learning", "fresh"))],
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_other_dtypes_train_like_float32(name, dtype):
    start = course.init_params()
    with jax.enable_x64(dtype == "float64"):
        train = course.trainer(_OPTIMIZERS[name], course.regression)
        clean, spoiled = (train(_cast(start, dtype), nan_steps) for nan_steps in (0, _NAN_STEPS))

    assert {leaf.dtype for leaf in jax.tree.leaves(clean.params)} == {jnp.dtype(dtype)}
    expected = _in_float32(name).losses[-1]
    assert expected < 0.05 * _in_float32(name).losses[0]
    # Learning enlarges the rounding of the narrowest type.
    rtol = 0.5 if (name, dtype) == ("learning", "bfloat16") else 0.3
    np.testing.assert_allclose(clean.losses[-1], expected, rtol=rtol)
    _assert_continues_after_nan(clean, spoiled)


def test_gradients_may_differ_in_dtype_from_their_parameters():
    """As in mixed precision, with leaves of different dtypes."""
    start = course.init_params()
    start["head"] = _cast(start["head"], jnp.bfloat16)

    def halved(params):
        return course.regression(_cast(params, jnp.bfloat16))

    train = course.trainer(_OPTIMIZERS["frozen"], halved)
    clean, spoiled = train(start), train(start, _NAN_STEPS)

    np.testing.assert_allclose(clean.losses[-1], _in_float32("frozen").losses[-1], rtol=0.3)
    _assert_continues_after_nan(clean, spoiled)
    tx, grads = _OPTIMIZERS["frozen"], _cast(start, jnp.float16)
    updates, _ = jax.eval_shape(tx.update, grads, jax.eval_shape(tx.init, start), start)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float16")}


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_parameters_train_like_pairs_of_real_ones(dtype):
    angles = jnp.linspace(0.0, 3.0, 6)
    real, imag = 2.0 * jnp.cos(angles), 0.5 * jnp.sin(angles) - 1.0
    slopes = jnp.linspace(0.2, 1.0, 6)

    def of_pair(pair):
        return jnp.sum(slopes * (jnp.square(pair[0] - 1.0) + jnp.square(pair[1] - 0.5)))

    def of_complex(params):
        return of_pair((jnp.real(params), jnp.imag(params)))

    with jax.enable_x64(dtype == "complex128"):
        start = jax.lax.complex(*_cast((real, imag), jnp.finfo(dtype).dtype))
        train = course.trainer(_OPTIMIZERS["frozen"], of_complex)
        clean, spoiled = train(start), train(start, _NAN_STEPS)
        pairs = course.trainer(_OPTIMIZERS["frozen"], of_pair)((jnp.real(start), jnp.imag(start)))

    assert clean.params.dtype == dtype
    np.testing.assert_allclose(clean.losses, pairs.losses, rtol=1e-4)
    assert clean.losses[-1] < 0.01 * clean.losses[0]
    _assert_continues_after_nan(clean, spoiled)


def test_float64_values_beyond_float32_are_finite():
    tx = _OPTIMIZERS["frozen"]
    with jax.enable_x64(True):
        params = jnp.ones(3, jnp.float64)
        state = tx.init(params)
        update = jax.jit(tx.update)
        for grads, value in ((jnp.full(3, 1e60), 1.0), (jnp.ones(3), 1e300)):
            updates, state = update(grads, tx.init(params), params, value=jnp.asarray(value))
            assert (np.asarray(updates) < 0).all()
            assert alphaopt.metrics(state)["updates_skipped"] == 0
        # One step with gradients far above all others says nothing of the next ones.
        spike, state = update(jnp.full(3, 1e60), state, params, value=jnp.asarray(1.0))
        updates, state = update(jnp.ones(3), state, params, value=jnp.asarray(1.0))

    np.testing.assert_array_equal(spike, 0.0)
    assert (np.asarray(updates) < 0).all()
    metrics = alphaopt.metrics(state)
    assert (metrics["updates_skipped"], metrics["updates_made"]) == (1, 2)


def test_a_step_does_not_overflow_half_precision():
    largest = float(jnp.finfo(jnp.float16).max)
    signs = jnp.array([1.0, 1.0, -1.0], jnp.float16)
    params = signs * jnp.array([largest, 0.95 * largest, 0.9 * largest], jnp.float16)
    tx = _OPTIMIZERS["frozen"]
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(10):
        updates, state = update(-signs, state, params)
        params = params + updates

    np.testing.assert_array_equal(params, signs * largest)


@pytest.mark.parametrize(
    ("leaf", "dtype"),
    [
        (jnp.arange(3), "int32"),
        (np.arange(3, dtype=np.uint8), "uint8"),
        (jnp.ones(3, bool), "bool"),
        (jax.random.key(0), "key<fry>"),
    ],
)
def test_leaves_that_are_not_floating_point_are_rejected_by_name(leaf, dtype):
    tx = _OPTIMIZERS["frozen"]
    good = {"weights": jnp.ones(3), "layer": [jnp.ones(3)]}
    bad = good | {"layer": [leaf]}
    message = r"floating-point and complex numbers.*\['layer'\]\[0\] of the {} is of type {}\. Keep"
    with pytest.raises(ValueError, match=message.format("parameters", dtype)):
        tx.update(bad, tx.init(bad), bad)
    with pytest.raises(ValueError, match=message.format("gradients", dtype)):
        tx.update(bad, tx.init(good), good)


def test_gradients_with_respect_to_integers_are_rejected():
    params = {"steps": jnp.arange(3), "weights": jnp.ones(2)}
    grads = jax.grad(lambda tree: jnp.sum(tree["weights"]), allow_int=True)(params)
    tx = _OPTIMIZERS["frozen"]
    with pytest.raises(ValueError, match=r"\['steps'\] of the parameters is of type int32"):
        tx.update(grads, tx.init(params), params)


# Trees.


class _Pair(NamedTuple):
    first: jax.Array
    second: jax.Array


_FIRST, _SECOND = jnp.linspace(-2.0, 2.0, 6).reshape(2, 3), jnp.asarray(1.5)


def _bowl(tree):
    first, second = jax.tree.leaves(tree)
    slopes = jnp.linspace(0.1, 1.0, 6).reshape(2, 3)
    return jnp.sum(slopes * jnp.square(first - 0.5)) + jnp.square(second + 1.0)


@functools.cache
def _in_a_dict():
    train = course.trainer(_OPTIMIZERS["frozen"], _bowl)
    start = {"a": _FIRST, "b": _SECOND}
    return train(start), train(start, _NAN_STEPS)


def test_a_dict_of_a_matrix_and_a_scalar_trains():
    clean, spoiled = _in_a_dict()

    assert clean.losses[-1] < 1e-3 * clean.losses[0]
    _assert_continues_after_nan(clean, spoiled)


@pytest.mark.parametrize(
    "start",
    [
        [_FIRST, _SECOND],
        _Pair(_FIRST, _SECOND),
        FrozenDict({"a": {"x": _FIRST}, "b": {"x": _SECOND}}),
        {"a": None, "b": (None, _FIRST), "c": {}, "d": [[_SECOND], None]},
        {1: np.asarray(_FIRST), 2: np.asarray(_SECOND)},
    ],
    ids=["list", "named tuple", "frozen dict", "None and empty nodes", "NumPy arrays"],
)
def test_the_tree_structure_does_not_matter(start):
    spoiled = course.trainer(_OPTIMIZERS["frozen"], _bowl)(start, _NAN_STEPS)

    assert jax.tree.structure(spoiled.params) == jax.tree.structure(start)
    np.testing.assert_allclose(spoiled.losses, _in_a_dict()[1].losses, rtol=1e-5)
    _assert_continues_after_nan(_in_a_dict()[0], spoiled)
    rates = alphaopt.learning_rates(spoiled.state, spoiled.params)
    assert jax.tree.structure(rates) == jax.tree.structure(start)


def test_python_numbers_are_scalars():
    tx = _OPTIMIZERS["frozen"]
    found = []
    for number in (lambda value: value, jnp.asarray):
        params = {"a": number(1.5), "b": number(-2.0 + 1.0j)}
        grads = {"a": number(0.5), "b": number(0.1 - 1.0j)}
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(grads, state, params, value=number(1.0))
        found.append((updates, alphaopt.learning_rates(state, params)))

    assert found[0][0]["a"] < 0 < found[0][0]["b"].imag
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), *found)


@pytest.mark.parametrize(("name", "left"), [("frozen", 1e-3), ("fresh", 0.2)])
def test_an_empty_leaf_is_kept_and_does_no_harm(name, left):
    start = {"a": _FIRST, "b": _SECOND, "c": jnp.zeros((0, 4))}

    def bowl(tree):
        return _bowl({"a": tree["a"], "b": tree["b"]}) + jnp.sum(tree["c"])

    train = course.trainer(_OPTIMIZERS[name], bowl)
    clean, spoiled = train(start), train(start, _NAN_STEPS)

    assert clean.params["c"].shape == (0, 4)
    assert clean.losses[-1] < left * clean.losses[0]
    _assert_continues_after_nan(clean, spoiled)


@pytest.mark.parametrize("name", ["frozen", "learning"])
@pytest.mark.parametrize(
    "nothing", [None, (), [None], {"a": jnp.zeros((0, 4))}], ids=["None", "()", "[None]", "size 0"]
)
def test_steps_of_a_tree_without_parameters_are_counted(name, nothing):
    tx, params = _OPTIMIZERS[name], {"model": nothing}
    update = jax.jit(tx.update)
    state = tx.init(params)
    for _ in range(9):  # More than a rollout.
        updates, state = update(params, state, params, value=1.0)

    assert jax.tree.structure(updates) == jax.tree.structure(params)
    metrics = alphaopt.metrics(state)
    assert metrics["updates_made"] == 9
    assert all(np.isfinite(figure) for figure in metrics.values())


def test_missing_gradients_are_reported():
    tx, params = _OPTIMIZERS["frozen"], {"a": jnp.ones(3), "b": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"The parameters and the gradients have.*\(3,\).*Initial"):
        tx.update({"a": None, "b": jnp.ones(2)}, tx.init(params), params)


@pytest.mark.slow
@pytest.mark.parametrize(
    "count",
    [
        200,
        pytest.param(1000, marks=pytest.mark.skipif(not _NIGHTLY, reason="compiles for minutes")),
    ],
)
@pytest.mark.nightly
def test_hundreds_of_leaves_train(count, monkeypatch):
    # With several devices, each leaf is compiled separately.
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    start = {f"{number:03}": jnp.full(2, 0.1 * (1 + number % 7)) for number in range(count)}

    def bowl(tree):
        return sum(jnp.sum(jnp.square(leaf - 1.0)) for leaf in tree.values())

    spoiled = course.trainer(_OPTIMIZERS["frozen"], bowl)(start, _NAN_STEPS)

    assert spoiled.finite.all()
    assert spoiled.losses[-1] < 0.01 * spoiled.losses[0]
    assert alphaopt.metrics(spoiled.state)["updates_skipped"] == _NAN_STEPS
    assert len(alphaopt.learning_rates(spoiled.state, start)) == count


# Counters.

_LAST = np.iinfo(np.int32).max


@pytest.mark.parametrize("learn", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_training_continues_when_its_counters_saturate(learn):
    tx = alphaopt.alphaopt(learn=learn, num_steps=10)  # The rates are constant after ten steps.
    start = {"a": _FIRST, "b": _SECOND}
    made = 47  # Steps before the counter saturates; the first begins a rollout and a refresh.

    def begin(params):
        return tx.init(params)._replace(
            updates_made=jnp.asarray(_LAST - made, jnp.int32),
            updates_skipped=jnp.asarray(_LAST - 2, jnp.int32),
        )

    spoiled = course.trainer(tx._replace(init=begin), _bowl, steps=200)(start, _NAN_STEPS)

    assert spoiled.finite.all()
    at_the_end = spoiled.losses[made + _NAN_STEPS]
    assert at_the_end < 0.5 * spoiled.losses[0]
    assert spoiled.losses[-1] < 0.2 * at_the_end
    assert _LAST - 200 < spoiled.state.updates_made <= _LAST
    assert spoiled.state.updates_skipped == _LAST
    assert all(np.isfinite(figure) for figure in alphaopt.metrics(spoiled.state).values())
    if learn:
        assert spoiled.state.learner.rounds == (200 - _NAN_STEPS) // 8
