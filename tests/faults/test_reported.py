"""Situations that users of other optimizers reported, each with what is right for it."""

import dataclasses
from typing import NamedTuple
import warnings

import equinox as eqx
from flax import nnx
from flax.core import FrozenDict
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import alphaopt_jax as alphaopt
from benchmarks.robustness.situations import usage

_FROZEN = alphaopt.alphaopt()
_MODES = {"frozen": {}, "learning": {"learn": True}, "fresh": {"agent": None}}
_BEYOND_A_ROLLOUT = 9


def _assert_equal(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


# A solver that hashes the optimizer.


def test_optimistix_minimizes_with_the_shipped_agent():
    assert usage.optimistix_solver().value < 3e-2


# A model that is passed as it is.


def _model():
    return eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))


def _gradients(model):
    return eqx.filter_grad(lambda model: jnp.sum(model(jnp.ones(2))))(model)


def _arrays(model):
    return eqx.filter(model, eqx.is_inexact_array)


@pytest.mark.parametrize(
    "mask",
    [
        None,
        lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
        jax.tree.map(lambda leaf: leaf.ndim > 1, _arrays(_model())),
        jax.tree.map(lambda leaf: eqx.is_array(leaf) and leaf.ndim > 1, _model()),
    ],
    ids=["no mask", "function", "mask of the arrays", "mask of the module"],
)
def test_a_whole_module_is_read_where_it_has_gradients(mask):
    model = _model()
    grads, arrays = _gradients(model), _arrays(model)
    tx = alphaopt.alphaopt(weight_decay=0.5, mask=mask)
    expected_mask = None if mask is None else jax.tree.map(lambda leaf: leaf.ndim > 1, arrays)
    reference = alphaopt.alphaopt(weight_decay=0.5, mask=expected_mask)

    updates, state = tx.update(grads, tx.init(arrays), model, value=1.0)

    expected, expected_state = reference.update(grads, reference.init(arrays), arrays, value=1.0)
    _assert_equal(updates, expected)
    assert jax.tree.structure(updates) == jax.tree.structure(grads)
    rates = alphaopt.learning_rates(state, model)
    _assert_equal(rates, alphaopt.learning_rates(expected_state, arrays))


def test_parameters_without_a_gradient_may_be_of_any_kind():
    params = {"w": jnp.ones(3), "steps": 3, "name": "net", "frozen": jnp.ones(2)}
    grads = {"w": jnp.full(3, 0.5), "steps": None, "name": None, "frozen": None}

    updates, _ = _FROZEN.update(grads, _FROZEN.init({"w": params["w"]}), params)

    assert jax.tree.structure(updates) == jax.tree.structure(grads)
    assert (np.asarray(updates["w"]) < 0).all()


@pytest.mark.parametrize(
    ("params", "leaf", "kind"),
    [
        (_model(), r"\.activation", "custom_jvp"),
        ({"steps": 3, "w": jnp.ones(2)}, r"\['steps'\]", "int32"),
        ({"name": "net", "w": jnp.ones(2)}, r"\['name'\]", "str"),
        ([jnp.ones(2), jnp.arange(2)], r"\[1\]", "int32"),
    ],
)
def test_init_names_a_leaf_that_cannot_be_moved_and_the_filter(params, leaf, kind):
    with pytest.raises(ValueError, match=rf"{leaf} of the parameters is of type {kind}\. .*filter"):
        _FROZEN.init(params)


def test_gradients_of_parameters_that_the_state_does_not_know_are_refused():
    grads = {"w": jnp.ones(3), "new": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"The optimizer state and the gradients.*Initialize"):
        _FROZEN.update(grads, _FROZEN.init({"w": jnp.ones(3)}), grads)


# Containers.


class _Named(NamedTuple):
    a: jax.Array
    b: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class _Reversed:
    b: jax.Array
    a: jax.Array


_A, _B = jnp.arange(1.0, 4.0), jnp.array([-2.0, 3.0, 5.0])  # Of one shape: order matters.
_CONTAINERS = {
    "dict": {"a": _A, "b": _B},
    "FrozenDict": FrozenDict({"a": _A, "b": _B}),
    "list": [_A, _B],
    "tuple": (_A, _B),
    "NamedTuple": _Named(_A, _B),
    "dataclass": _Reversed(_B, _A),
    "None leaves": {"a": _A, "b": _B, "c": None, "d": {}},
    "nnx.State": nnx.State({"a": nnx.Param(_A), "b": nnx.Param(_B)}),
}
_NAMED = ("dict", "dataclass", "FrozenDict", "None leaves", "nnx.State")
_PAIRS = [
    *((grads, params) for grads in _NAMED for params in _NAMED),
    ("list", "tuple"),
    ("tuple", "list"),
    ("NamedTuple", "tuple"),
    ("list", "NamedTuple"),
    ("NamedTuple", "dict"),
]


@pytest.mark.parametrize(("grads", "params"), [pair for pair in _PAIRS if len({*pair}) == 2])
def test_gradients_parameters_and_state_may_be_in_different_containers(grads, params):
    grads, params = _CONTAINERS[grads], _CONTAINERS[params]
    tx, plain = alphaopt.alphaopt(weight_decay=0.1), _CONTAINERS["dict"]
    expected, expected_state = tx.update(plain, tx.init(plain), plain, value=1.0)

    for start in (grads, params):
        updates, state = tx.update(grads, tx.init(start), params, value=1.0)

        assert jax.tree.structure(updates) == jax.tree.structure(grads)
        rates = alphaopt.learning_rates(state, params)
        for tree, wanted in (
            (updates, expected),
            (rates, alphaopt.learning_rates(expected_state, plain)),
        ):
            found = jax.tree.leaves(tree)
            found = found[::-1] if isinstance(tree, _Reversed) else found
            _assert_equal(found, jax.tree.leaves(wanted))


# A training of Flax NNX and its next episode.


def _trained(**arguments):
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, alphaopt.alphaopt(**arguments), wrt=nnx.Param)
    return model, optimizer, _train(model, optimizer)


def _train(model, optimizer):
    value, grads = nnx.value_and_grad(lambda model: jnp.mean(model(jnp.ones((4, 2))) ** 2))(model)
    optimizer.update(model, grads, value=value)
    return value


def _assign(optimizer):
    optimizer.opt_state = nnx.data(alphaopt.new_episode(optimizer.opt_state))


def _write_pure(optimizer):
    new = alphaopt.new_episode(nnx.as_pure(optimizer.opt_state))
    nnx.update(optimizer.opt_state, nnx.state(new))


@pytest.mark.parametrize("mode", ["frozen", "learning"])
@pytest.mark.parametrize("begin", [_assign, _write_pure])
def test_a_new_episode_of_an_nnx_optimizer_begins_and_trains(begin, mode):
    model, optimizer, _ = _trained(**_MODES[mode])

    begin(optimizer)

    assert alphaopt.metrics(optimizer.opt_state)["updates_made"] == 0
    _train(model, optimizer)
    assert alphaopt.metrics(nnx.as_pure(optimizer.opt_state))["updates_made"] == 1


def test_the_state_of_an_nnx_optimizer_is_read_with_and_without_its_variables():
    model, optimizer, _ = _trained()
    state, pure = optimizer.opt_state, nnx.as_pure(optimizer.opt_state)
    params = nnx.state(model, nnx.Param)

    _assert_equal(alphaopt.metrics(state), alphaopt.metrics(pure))
    assert alphaopt.agent_from_state(state) == alphaopt.agent_from_state(pure)
    assert alphaopt.agent_from_state(pure) == dataclasses.replace(
        alphaopt.load_agent("base"), params=alphaopt.agent_from_state(pure).params
    )
    found, expected = (alphaopt.learning_rates(each, nnx.as_pure(params)) for each in (state, pure))
    _assert_equal(found, expected)
    new, new_pure = alphaopt.new_episode(state), alphaopt.new_episode(pure)
    _assert_equal(jax.tree.leaves(new), jax.tree.leaves(new_pure))
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert jax.tree.structure(new_pure) == jax.tree.structure(pure)


def test_a_part_of_an_nnx_model_is_trained():
    model = nnx.LoRA(2, 3, 1, base_module=nnx.Linear(2, 1, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(1))
    optimizer = nnx.Optimizer(model, alphaopt.alphaopt(), wrt=nnx.LoRAParam)
    before = nnx.as_pure(nnx.state(model))

    def cost(model):
        return jnp.mean(jnp.square(model(jnp.ones((4, 2))) - 1.0))

    argnums = nnx.DiffState(0, nnx.LoRAParam)
    for _ in range(3):
        value, grads = nnx.value_and_grad(cost, argnums=argnums)(model)
        optimizer.update(model, grads, value=value)

    after = nnx.as_pure(nnx.state(model))
    _assert_equal(after["base_module"], before["base_module"])
    assert not np.array_equal(after["lora_b"], before["lora_b"])
    assert cost(model) < value


# Seeds.


def _after_a_rollout(seed, mode):
    tx, params = alphaopt.alphaopt(seed=seed, **_MODES[mode]), jnp.array([1.0, -2.0])
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(_BEYOND_A_ROLLOUT):
        updates, state = update(0.5 * params, state, params, value=1.0)
    return updates


@pytest.mark.parametrize("mode", _MODES)
@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_a_key_of_another_implementation_is_a_seed(mode, impl):
    key = jax.random.key(5, impl=impl)

    found = _after_a_rollout(key, mode)

    assert np.isfinite(found).all()
    _assert_equal(found, _after_a_rollout(jax.random.key_data(key), mode))
    if mode != "frozen":
        assert not np.array_equal(found, _after_a_rollout(jax.random.key(6, impl=impl), mode))


@pytest.mark.parametrize("mode", _MODES)
def test_a_training_is_the_same_whatever_the_default_implementation_of_keys(mode):
    with jax.default_prng_impl("rbg"):
        found = _after_a_rollout(3, mode)
        of_keys = [_after_a_rollout(make(3), mode) for make in (jax.random.key, jax.random.PRNGKey)]

    _assert_equal(found, _after_a_rollout(3, mode))
    _assert_equal(*of_keys)


def test_keys_of_another_implementation_may_be_traced():
    keys = jax.random.split(jax.random.key(0, impl="rbg"), 3)

    found = jax.vmap(lambda key: _after_a_rollout(key, "fresh"))(keys)

    np.testing.assert_allclose(found[1], _after_a_rollout(keys[1], "fresh"), rtol=1e-2)
    assert not np.allclose(found[0], found[2], rtol=1e-2)


# A step size that is carried over.


@pytest.mark.parametrize("rate", [1e-3, np.float32(1e-2), 0.1, np.array(0.1), 0, 10, 1e6])
def test_a_constant_learning_rate_far_from_one_is_asked_about(rate):
    with pytest.warns(
        UserWarning, match=r"is no step size: it multiplies.*1 is the default"
    ) as got:
        alphaopt.alphaopt(rate)
    assert len(got) == 1
    assert got[0].filename == __file__


def test_the_warning_says_how_much_slower():
    with pytest.warns(UserWarning, match="All steps are 1,000 times smaller"):
        alphaopt.alphaopt(1e-3)


@pytest.mark.parametrize(
    "rate",
    [
        0.3,
        1,
        np.float64(3.0),
        jnp.asarray(1e-3),
        jnp.asarray(-1.0),
        optax.constant_schedule(1e-3),
        optax.linear_schedule(0.0, 1.0, 100),
        lambda count: -1.0,
    ],
)
def test_other_learning_rates_are_taken_as_they_are(rate):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alphaopt.alphaopt(rate)


@pytest.mark.parametrize("make", [jnp.asarray, optax.constant_schedule], ids=["array", "schedule"])
def test_arrays_and_schedules_act_as_the_number(make):
    params = jnp.array([1.0, -2.0])
    with pytest.warns(UserWarning, match="is no step size"):
        constant = alphaopt.alphaopt(0.01)
    other = alphaopt.alphaopt(make(0.01))

    updates, expected = (tx.update(params, tx.init(params), params)[0] for tx in (other, constant))

    _assert_equal(updates, expected)


@pytest.mark.parametrize("rate", [0.01, 1.0, -1.0])
def test_injected_learning_rates_are_taken_as_they_are(rate):
    params = jnp.array([1.0, -2.0])
    tx = optax.inject_hyperparams(alphaopt.alphaopt)(learning_rate=rate)
    plain = alphaopt.alphaopt(jnp.asarray(rate))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        updates, _ = tx.update(params, tx.init(params), params)

    _assert_equal(updates, plain.update(params, plain.init(params), params)[0])
