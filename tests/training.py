"""A small training that several tests share: a two-layer net on noisy batches."""

import functools

import jax
import jax.numpy as jnp
import optax


def init_params():
    keys = jax.random.split(jax.random.key(7), 2)
    return {
        "hidden": {"kernel": 0.3 * jax.random.normal(keys[0], (8, 16)), "bias": jnp.zeros(16)},
        "output": {"kernel": 0.3 * jax.random.normal(keys[1], (16, 8))},
    }


def loss(params, batch):
    hidden = jnp.tanh(batch @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
    return jnp.mean(jnp.square(hidden @ params["output"]["kernel"] - jnp.sin(batch)))


def batch(step):
    return jax.random.normal(jax.random.fold_in(jax.random.key(11), step), (32, 8))


def make_step(tx):
    """One step of training with `tx`: `(params, state, batch) -> (params, state, loss)`."""

    def step(params, state, batch):
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state, value

    return step


@functools.lru_cache(maxsize=4)
def _jitted_step(tx):
    return jax.jit(make_step(tx))


def train(tx, steps, params=None, state=None, first=0):
    """Trains for some steps and returns `(params, state, losses)`."""
    params = init_params() if params is None else params
    state = tx.init(params) if state is None else state
    step = _jitted_step(tx)
    losses = []
    for number in range(first, first + steps):
        params, state, value = step(params, state, batch(number))
        losses.append(value)
    return params, state, jnp.stack(losses)
