"""AlphaOpt inside other transformations, `nnx.Optimizer` and a Linen `TrainState`."""

import functools

import chex
from flax import linen as nn
from flax import nnx
from flax.training import train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import alphaopt_jax
from alphaopt_jax import AlphaOptConfig
from tests import quadratic

alphaopt = functools.partial(alphaopt_jax.alphaopt, agent=None)

_CONFIG = AlphaOptConfig()
_FLOAT16_RATES = 2e-3  # Relative error of rate multipliers in float16.


def test_a_chain_passes_the_clipped_gradients(decided_agent):
    tx = optax.chain(optax.clip_by_global_norm(0.1), alphaopt(agent=decided_agent))
    grads = jax.grad(quadratic.loss)(quadratic.init_params())
    clipped = jax.tree.map(lambda leaf: 0.1 * leaf / optax.tree.norm(grads), grads)

    updates, state = tx.update(
        grads, tx.init(quadratic.init_params()), quadratic.init_params(), value=1.0
    )

    inner = alphaopt(agent=decided_agent)
    expected, inner_state = inner.update(
        clipped, inner.init(quadratic.init_params()), quadratic.init_params(), value=1.0
    )
    chex.assert_trees_all_close(updates, expected, rtol=1e-3)
    chex.assert_trees_all_close(
        alphaopt_jax.metrics(state), alphaopt_jax.metrics(inner_state), rtol=1e-2, atol=1e-4
    )


def test_multi_steps_passes_the_mean_gradient(decided_agent):
    inner = alphaopt(agent=decided_agent)
    tx = optax.MultiSteps(inner, every_k_schedule=2)
    params, grads = quadratic.init_params(), jax.grad(quadratic.loss)(quadratic.init_params())
    state = tx.init(params)

    first, state = tx.update(grads, state, params, value=1.0)
    second, state = tx.update(jax.tree.map(lambda x: 3.0 * x, grads), state, params, value=1.0)

    assert not any(np.any(leaf) for leaf in jax.tree.leaves(first))
    mean = jax.tree.map(lambda x: 2.0 * x, grads)
    expected, _ = inner.update(mean, inner.init(params), params, value=1.0)
    chex.assert_trees_all_close(second, expected, rtol=_FLOAT16_RATES)


def test_masked_updates_only_its_leaves(decided_agent):
    tx = optax.masked(alphaopt(agent=decided_agent), {"b": False, "w": True})
    params, grads = quadratic.init_params(), jax.grad(quadratic.loss)(quadratic.init_params())

    updates, _ = tx.update(grads, tx.init(params), params, value=1.0)

    alone = alphaopt(agent=decided_agent)
    only = {"w": params["w"]}
    expected, _ = alone.update({"w": grads["w"]}, alone.init(only), only, value=1.0)
    np.testing.assert_array_equal(updates["b"], grads["b"])
    np.testing.assert_allclose(updates["w"], expected["w"], rtol=1e-5)


def test_multi_transform_updates_only_its_leaves():
    tx = optax.multi_transform(
        {"ours": alphaopt(learn=False), "theirs": optax.sgd(0.1)}, {"b": "theirs", "w": "ours"}
    )

    params, state = quadratic.run(tx, num_steps=2)

    assert alphaopt_jax.metrics(state)["updates_made"] == 2
    descended = quadratic.run(optax.sgd(0.1), num_steps=2)[0]
    np.testing.assert_allclose(params["b"], descended["b"], rtol=1e-6)
    assert set(alphaopt_jax.learning_rates(state, {"w": params["w"]})) == {"w"}
    with pytest.raises(ValueError, match=r"to 1 arrays, but params has 2.*optax.partition"):
        alphaopt_jax.learning_rates(state, params)


def test_injected_hyperparameters_are_arrays_and_act():
    tx = optax.inject_hyperparams(alphaopt)(weight_decay=0.1, learn=False)
    params, grads = quadratic.init_params(), jax.grad(quadratic.loss)(quadratic.init_params())
    state = tx.init(params)
    assert {"learning_rate", "weight_decay", "seed"} == set(state.hyperparams)
    update = jax.jit(tx.update)

    updates, _ = update(grads, state, params, value=1.0)
    state.hyperparams["learning_rate"] = jnp.asarray(0.5)
    halved, _ = update(grads, state, params, value=1.0)

    plain = alphaopt(weight_decay=0.1, learn=False)
    chex.assert_trees_all_close(
        updates, plain.update(grads, plain.init(params), params)[0], rtol=1e-5
    )
    base = min(_CONFIG.relative_step, _CONFIG.max_relative_step)
    factor = min(0.5 * _CONFIG.relative_step, _CONFIG.max_relative_step) / base
    chex.assert_trees_all_close(
        halved, jax.tree.map(lambda leaf: factor * leaf, updates), rtol=1e-5
    )


def _regression():
    inputs = jax.random.normal(jax.random.key(3), (32, 4))
    return inputs, inputs @ jnp.array([[1.0], [-2.0], [0.5], [3.0]])


def test_nnx_optimizer_passes_the_loss():
    inputs, targets = _regression()
    model = nnx.Linear(4, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, alphaopt(), wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer):
        def loss(model):
            return jnp.mean(jnp.square(model(inputs) - targets))

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads, value=value)
        return value

    values = [train_step(model, optimizer) for _ in range(100)]

    assert values[-1] < 0.5 * values[0]
    metrics = alphaopt_jax.metrics(nnx.as_pure(optimizer.opt_state))
    assert metrics["updates_made"] == 100
    assert metrics["rounds"] > 0
    history = nnx.as_pure(optimizer.opt_state).history.loss
    assert history.observed == 100


class _TrainState(train_state.TrainState):
    def apply_gradients(self, *, grads, value, **kwargs):
        updates, opt_state = self.tx.update(grads, self.opt_state, self.params, value=value)
        params = optax.apply_updates(self.params, updates)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **kwargs)


def test_linen_train_state_passes_the_loss():
    inputs, targets = _regression()
    model = nn.Dense(1)
    state = _TrainState.create(
        apply_fn=model.apply, params=model.init(jax.random.key(0), inputs), tx=alphaopt()
    )

    @jax.jit
    def train_step(state):
        def loss(params):
            return jnp.mean(jnp.square(state.apply_fn(params, inputs) - targets))

        value, grads = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=grads, value=value), value

    values = []
    for _ in range(100):
        state, value = train_step(state)
        values.append(value)

    assert values[-1] < 0.5 * values[0]
    assert state.opt_state.history.loss.observed == state.step == 100
