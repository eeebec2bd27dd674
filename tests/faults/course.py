"""A short training of any parameters by any optimizer, with gradients that are NaN on the way."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

STEPS, FIRST = 100, 40
"""Of a training, and the one at which the gradients become NaN."""


class Course(NamedTuple):
    """What became of a training.

    Attributes:
      losses: Before each step and at the end.
      finite: Whether all parameters were finite after each step.
      params: At the end.
      state: The optimizer's, at the end.
    """

    losses: np.ndarray
    finite: np.ndarray
    params: chex.ArrayTree
    state: optax.OptState


def trainer(tx, loss, *, steps=STEPS, told=True, moved=lambda params: params, **extra):
    """A function from parameters and for how many steps gradients are NaN to a `Course`.

    Args:
      tx: The optimizer.
      loss: From parameters to a number.
      steps: How many.
      told: Whether the optimizer is given the loss.
      moved: From what is trained to what the loss and the gradients are of.
      **extra: From parameters' gradients to what else the optimizer is given, by name.

    Returns:
      The function. It is compiled once, whether gradients become NaN or not.
    """

    @jax.jit
    def train(params, lasting):
        def step(carry, number):
            params, state = carry
            value, grads = jax.value_and_grad(loss)(moved(params))
            spoiled = (number >= FIRST) & (number < FIRST + lasting)
            grads = jax.tree.map(  # JAX's gradients of complex numbers point the other way.
                lambda grad: jnp.where(spoiled, jnp.full_like(grad, jnp.nan), jnp.conj(grad)), grads
            )
            given = {"value": value} if told else {}
            given |= {name: make(grads) for name, make in extra.items()}
            updates, state = tx.update(grads, state, params, **given)
            chex.assert_trees_all_equal_dtypes(moved(updates), grads)
            params = optax.apply_updates(params, updates)
            finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]
            return (params, state), (value, jnp.all(jnp.stack(finite)))

        carry = (params, tx.init(params))
        (params, state), (losses, finite) = jax.lax.scan(step, carry, jnp.arange(steps))
        return Course(jnp.append(losses, loss(moved(params))), finite, params, state)

    return lambda params, lasting=0: jax.device_get(train(params, lasting))


def init_params():
    """Of the regression, `float32`."""
    body, head = jax.random.split(jax.random.key(1))
    return {
        "body": {"kernel": 0.3 * jax.random.normal(body, (4, 8)), "bias": jnp.zeros(8)},
        "head": {"kernel": 0.3 * jax.random.normal(head, (8, 2))},
    }


def regression(params):
    """Mean squared error of a two-layer net, computed in the type of its parameters."""
    dtype = params["body"]["kernel"].dtype
    inputs = jax.random.normal(jax.random.key(0), (64, 4), jnp.float32).astype(dtype)
    hidden = jnp.tanh(inputs @ params["body"]["kernel"] + params["body"]["bias"])
    errors = hidden @ params["head"]["kernel"] - jnp.sin(inputs[:, :2])
    return jnp.mean(jnp.square(errors.astype(jnp.promote_types(dtype, jnp.float32))))
