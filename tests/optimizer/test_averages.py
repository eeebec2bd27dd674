"""Averaged parameters, at which trainings without a number of steps are evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import alphaopt_jax as alphaopt


def _train(tx, params, gradients):
    """Parameters after every step, and the last state."""
    state, path = tx.init(params), []
    for grads in gradients:
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path, state


def test_the_average_weighs_parameters_by_a_power_of_time():
    tx = alphaopt.alphaopt()
    params = {"w": jnp.arange(1.0, 4.0)}
    gradients = [{"w": jax.random.normal(jax.random.key(number), (3,))} for number in range(40)]

    path, state = _train(tx, params, gradients)
    found = alphaopt.eval_params(state, path[-1])["w"]

    expected = np.array(path[0]["w"], np.float64)
    for number, point in enumerate(path[1:], start=1):
        expected += 9.0 / (number + 9.0) * (np.asarray(point["w"]) - expected)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not np.allclose(found, path[-1]["w"], rtol=1e-4)


def test_averages_take_out_noise():
    """A quadratic with noisy gradients: its last parameters move about its minimum."""
    tx, key = alphaopt.alphaopt(4.0, agent=None, learn=False), jax.random.key(0)

    def step(carry, key):
        params, state = carry
        grads = (params - 1.0) + 3.0 * jax.random.normal(key, params.shape)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    params = jnp.ones(200)
    (params, state), _ = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(key, 1000))

    averaged = alphaopt.eval_params(state, params)
    errors = [float(jnp.mean(jnp.square(each - 1.0))) for each in (params, averaged)]
    assert errors[1] < 0.5 * errors[0]


def test_with_a_number_of_steps_they_are_the_parameters_and_cost_nothing():
    tx = alphaopt.alphaopt(num_steps=10)
    path, state = _train(tx, jnp.ones(3), [jnp.ones(3)] * 3)

    assert state.average is None
    assert alphaopt.eval_params(state, path[-1]) is path[-1]


def test_before_the_first_step_they_are_the_parameters():
    params = {"w": jnp.arange(3.0)}
    state = alphaopt.alphaopt().init(params)

    np.testing.assert_array_equal(alphaopt.eval_params(state, params)["w"], params["w"])


def test_they_keep_types_containers_and_what_is_not_optimized():
    tx = optax.chain(optax.clip_by_global_norm(1.0), alphaopt.alphaopt())
    module = {"f": jnp.tanh, "half": jnp.ones(3, jnp.bfloat16), "z": jnp.ones(2, jnp.complex64)}
    params = {name: leaf for name, leaf in module.items() if name != "f"}
    state = tx.init(params)
    for _ in range(3):
        _, state = tx.update(params, state, params)

    averaged = alphaopt.eval_params(state, module)

    assert averaged["f"] is jnp.tanh
    assert averaged["half"].dtype == jnp.bfloat16
    assert averaged["z"].dtype == jnp.complex64
    np.testing.assert_allclose(averaged["z"], params["z"])


def test_skipped_steps_do_not_count():
    tx = alphaopt.alphaopt()
    steps = [jnp.ones(2), jnp.ones(2), jnp.ones(2)]
    path, state = _train(tx, jnp.zeros(2), steps)
    again, with_skips = _train(
        tx, jnp.zeros(2), [steps[0], jnp.full(2, jnp.nan), *steps[1:], jnp.full(2, jnp.nan)]
    )

    np.testing.assert_array_equal(again[-1], path[-1])
    np.testing.assert_array_equal(
        alphaopt.eval_params(with_skips, again[-1]), alphaopt.eval_params(state, path[-1])
    )


def test_forbidden_entries_stay_forbidden():
    params = jnp.array([0.5, -jnp.inf, 1.0])
    path, state = _train(alphaopt.alphaopt(), params, [jnp.array([1.0, 0.0, 1.0])] * 4)

    averaged = alphaopt.eval_params(state, path[-1])
    assert averaged[1] == -jnp.inf
    assert np.all(np.isfinite(averaged[jnp.array([0, 2])]))


def test_other_parameters_are_refused():
    state = alphaopt.alphaopt().init({"a": jnp.ones(2), "b": jnp.ones(3)})

    with pytest.raises(ValueError, match=r"belongs to 2 arrays, but params has 1"):
        alphaopt.eval_params(state, {"a": jnp.ones(2)})
