"""A quadratic of two leaves, and steps of an optimizer on it."""

import jax
import jax.numpy as jnp
import optax


def init_params():
    return {"b": jnp.array([0.5, -1.0, 2.0]), "w": jnp.arange(1.0, 7.0).reshape(3, 2)}


def loss(params, scale=1.0):
    target = {"b": 3.0, "w": -1.0}
    parts = jax.tree.map(lambda leaf, aim: jnp.sum(jnp.square(leaf - aim)), params, target)
    return scale * (parts["b"] + 5.0 * parts["w"])


def make_step(tx):
    """One step of training with `tx`: `(params, state) -> (params, state)`."""

    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state

    return step


def steps(tx, num_steps, params=None, loss=loss):
    """Yields updates, parameters and state after each step.

    Only `tx.update` is compiled as a whole: optimizers that differ in the loss or in the agent's
    parameters share one program.
    """
    params = init_params() if params is None else params
    update, value_and_grad = jax.jit(tx.update), jax.jit(jax.value_and_grad(loss))
    state = tx.init(params)
    for _ in range(num_steps):
        value, grads = value_and_grad(params)
        updates, state = update(grads, state, params, value=value)
        params = optax.apply_updates(params, updates)
        yield updates, params, state


def run(tx, num_steps=3, params=None, loss=loss):
    """Parameters and state after some steps."""
    *_, (_, params, state) = steps(tx, num_steps, params, loss)
    return params, state
