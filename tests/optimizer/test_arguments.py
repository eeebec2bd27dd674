"""Arguments of a wrong kind are refused, each with one sentence and the remedy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import alphaopt_jax
from alphaopt_jax import AgentConfig, AlphaOptConfig, StepConfig

alphaopt = functools.partial(alphaopt_jax.alphaopt, agent=None, learn=False)

_PARAMS = {"b": jnp.array([0.5, -1.0, 2.0]), "w": jnp.arange(1.0, 7.0).reshape(3, 2)}
_GRADS = jax.tree.map(jnp.ones_like, _PARAMS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": "1"}, r"`learning_rate` must be a number or a function.*'1'\. Leave it"),
        ({"learning_rate": None}, r"`learning_rate` must be a number.*None\. Leave it out"),
        ({"learning_rate": True}, r"`learning_rate` must be a number.*True\. Leave it out"),
        ({"learning_rate": [0.5]}, r"`learning_rate` must be a number.*type list\. Leave it out"),
        ({"learning_rate": np.ones(2)}, r"`learning_rate` must be a number.*shape \(2,\).*float64"),
        ({"learning_rate": -1.0}, r"`learning_rate`.*not negative; got -1\. To maximize"),
        ({"learning_rate": np.nan}, r"`learning_rate`.*must be finite.*got nan"),
        ({"learning_rate": np.inf}, r"`learning_rate`.*must be finite.*got inf"),
        ({"weight_decay": "1e-4"}, r"`weight_decay` must be a number.*'1e-4'\. Leave it out"),
        ({"weight_decay": None}, r"`weight_decay` must be a number.*None\. Leave it out"),
        ({"weight_decay": -1e-4}, r"`weight_decay` must be finite and not negative; got -0\.0001"),
        ({"mask": "kernel"}, r"`mask` must be a pytree of booleans.*'kernel' in it"),
        ({"mask": {"b": 0.5, "w": 1.0}}, r"`mask` must be.*0\.5 in it.*optax\.partition"),
        ({"mask": {"b": np.ones(3, bool)}}, r"`mask` must be.*an array of the shape \(3,\)"),
    ],
)
def test_arguments_of_alphaopt_alone(arguments, message):
    with pytest.raises(ValueError, match=message):
        alphaopt(**arguments)


@pytest.mark.parametrize("make", [alphaopt_jax.alphaopt, alphaopt_jax.scale_by_alphaopt])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 0}, r"`num_steps` is the planned number.*at least 1.*got 0"),
        ({"num_steps": np.int32(-1)}, r"`num_steps` is the planned number.*"),
        ({"num_steps": 10.5}, r"`num_steps` is.*a whole number.*got 10\.5"),
        ({"num_steps": "10"}, r"`num_steps` is.*got '10'"),
        ({"num_steps": True}, r"`num_steps` is.*got True"),
        ({"num_steps": np.inf}, r"`num_steps` is.*None if it is unknown; got inf"),
        ({"num_steps": np.nan}, r"`num_steps` is.*got nan"),
        ({"num_steps": jnp.ones(2)}, r"`num_steps` is.*shape \(2,\)"),
        ({"learn": 1}, r"`learn` must be True, False, or None for the default; got 1"),
        ({"learn": "yes"}, r"`learn` must be True, False, or None.*got 'yes'"),
        ({"backoff": "off"}, r"`backoff` must be True, or False to turn it off; got 'off'"),
        ({"backoff": 0.5}, r"`backoff` must be True, or False.*got 0\.5"),
        (
            {"coordinates": "own"},
            r'`coordinates` must be "rotated", "parameters", or None.*\'own\'',
        ),
        ({"coordinates": True}, "`coordinates` must be .*got True"),
        ({"learn": jnp.asarray(True)}, r"`learn` must be.*it cannot be an array"),
        (
            {"config": AgentConfig()},
            r"`config` must be an AlphaOptConfig, such as.*type AgentConfig",
        ),
        ({"config": StepConfig()}, r"`config` must be an AlphaOptConfig.*type StepConfig"),
        (
            {"config": {"moment_dtype": "bfloat16"}},
            r"`config` must be an AlphaOptConfig.*type dict",
        ),
        ({"config": AlphaOptConfig}, r"`config` must be an AlphaOptConfig.*<class"),
        ({"agent": 3}, r"`agent` must be an Agent, the name.*got 3\. `agent_from_state"),
        ({"agent": AgentConfig()}, r"`agent` must be an Agent.*type AgentConfig"),
        ({"agent": {"actor": {}}}, r"`agent` must be an Agent.*type dict"),
        ({"seed": 1.0}, r"`seed` must be a whole number or a key.*got 1\.0"),
        ({"seed": "1"}, r"`seed` must be a whole number or a key.*got '1'"),
        ({"seed": None}, r"`seed` must be a whole number or a key.*got None"),
        ({"seed": True}, r"`seed` must be a whole number or a key.*got True"),
        ({"seed": np.arange(3)}, r"`seed` must be.*shape \(3,\)"),
        (
            {"seed": jax.random.split(jax.random.key(0))},
            r"`seed` must be one key.*\(2,\).*jax\.vmap",
        ),
        ({"seed": jax.random.split(jax.random.PRNGKey(0))}, r"`seed` must be one key.*\(2, 2\)"),
    ],
)
def test_arguments_of_both_transformations(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**{"agent": None} | arguments)


def test_a_planned_number_of_updates_may_be_any_whole_number():
    def rates(num_steps):
        tx = alphaopt(num_steps=num_steps)
        state = tx.init(_PARAMS)
        for _ in range(3):
            _, state = tx.update(_GRADS, state, _PARAMS)
        return state.leaf_rates

    expected = rates(10_000)
    for num_steps in (1e4, np.int64(10_000), np.float32(1e4), np.array(10_000), jnp.asarray(1e4)):
        np.testing.assert_array_equal(rates(num_steps), expected)
    np.testing.assert_allclose(jax.jit(rates)(10_000), expected, rtol=1e-6)


@pytest.mark.unchecked
def test_weight_decay_may_be_a_schedule():
    def strength(count):
        return 0.1 * count

    scheduled, state = alphaopt(weight_decay=strength, mask={"b": False, "w": True}), None
    state = scheduled.init(_PARAMS)
    for number in range(3):
        constant = alphaopt(weight_decay=0.1 * number, mask={"b": False, "w": True})
        expected, _ = constant.update(_GRADS, state, _PARAMS)
        updates, state = scheduled.update(_GRADS, state, _PARAMS)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), updates, expected)


def test_what_a_function_gives_as_a_mask_is_checked():
    tx = alphaopt(weight_decay=0.1, mask=lambda params: jax.tree.map(jnp.ndim, params))
    with pytest.raises(ValueError, match=r"`mask` must be a pytree of booleans.*got 1 in it"):
        tx.update(_GRADS, tx.init(_PARAMS), _PARAMS)


_TX = alphaopt()
_STATE = _TX.init(_PARAMS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((_GRADS, _STATE, 1.0), r"third argument.*was one number.*value=loss"),
        ((_GRADS, _STATE, jnp.asarray(1.0)), r"third argument.*was one number.*value=loss"),
        ((_GRADS, _STATE, _PARAMS, 1.0), r"loss is passed to `update` by its name.*value=loss"),
        ((_GRADS, _PARAMS, _STATE), r"state is the second argument of `update`"),
        ((_STATE, _GRADS, _PARAMS), r"state is the second argument of `update`"),
        ((_GRADS, _PARAMS, _PARAMS), r"state of another optimizer, a dict"),
        ((_GRADS, _STATE), r"needs the current parameters"),
    ],
)
def test_arguments_of_update_in_a_wrong_place(arguments, message):
    with pytest.raises(ValueError, match=message):
        _TX.update(*arguments)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (jnp.ones(3), r"`value` is the loss, one number.*\(3,\).*has_aux"),
        ((jnp.ones(()), {"accuracy": jnp.ones(())}), r"`value` is the loss, one number.*has_aux"),
        ("0.5", r"`value` is the loss, one real number, but was given as a str"),
        (lambda params: 1.0, r"`value` is the loss, one real number.*function"),
        (1.0j, r"`value` is the loss, one real number.*complex64"),
    ],
)
def test_values_that_are_no_loss(value, message):
    with pytest.raises(ValueError, match=message):
        _TX.update(_GRADS, _STATE, _PARAMS, value=value)


def test_a_scalar_is_a_parameter_like_any_other():
    tx, one = alphaopt(), jnp.ones(())
    updates, _ = tx.update(one, tx.init(one), one)
    assert updates < 0
    assert optax.apply_updates(one, updates) < 1
