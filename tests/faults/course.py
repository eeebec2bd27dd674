"""A short training of any parameters with any optimizer, and NaN gradients partway through."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

STEPS, FIRST = 100, 40
"""Number of steps, and the first step with NaN gradients."""


class Course(NamedTuple):
    """Record of a training.

    Attributes:
      losses: Loss before each step and at the end, `[steps + 1]`.
      finite: True where all parameters are finite after a step, `[steps]`.
      params: Final parameters.
      state: Final optimizer state.
    """

    losses: np.ndarray
    finite: np.ndarray
    params: chex.ArrayTree
    state: optax.OptState


def trainer(tx, loss, *, steps=STEPS, pass_value=True, moved=lambda params: params, **extra):
    """Returns a function from parameters and a number of NaN steps to a `Course`.

    Args:
      tx: The optimizer.
      loss: Function from parameters to a scalar.
      steps: Number of steps.
      pass_value: Whether `update` gets the loss as `value`.
      moved: Function from the trained tree to the parameters at which the loss is evaluated.
      **extra: Functions from gradients to further arguments of `update`, by name.

    Returns:
      The function. It compiles once; the number of NaN steps is traced.
    """

    @jax.jit
    def train(params, nan_steps):
        def step(carry, number):
            params, state = carry
            value, grads = jax.value_and_grad(loss)(moved(params))
            spoiled = (number >= FIRST) & (number < FIRST + nan_steps)
            grads = jax.tree.map(  # JAX returns the conjugate of complex gradients.
                lambda grad: jnp.where(spoiled, jnp.full_like(grad, jnp.nan), jnp.conj(grad)), grads
            )
            given = {"value": value} if pass_value else {}
            given |= {name: make(grads) for name, make in extra.items()}
            updates, state = tx.update(grads, state, params, **given)
            chex.assert_trees_all_equal_dtypes(moved(updates), grads)
            params = optax.apply_updates(params, updates)
            finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]
            return (params, state), (value, jnp.all(jnp.stack(finite)))

        carry = (params, tx.init(params))
        (params, state), (losses, finite) = jax.lax.scan(step, carry, jnp.arange(steps))
        return Course(jnp.append(losses, loss(moved(params))), finite, params, state)

    return lambda params, nan_steps=0: jax.device_get(train(params, nan_steps))


def init_params(seed=1):
    """Parameters of the regression, `float32`."""
    body, head = jax.random.split(jax.random.key(seed))
    return {
        "body": {"kernel": 0.3 * jax.random.normal(body, (4, 8)), "bias": jnp.zeros(8)},
        "head": {"kernel": 0.3 * jax.random.normal(head, (8, 2))},
    }


def regression(params):
    """Mean squared error of a two-layer net, computed in the dtype of its parameters."""
    dtype = params["body"]["kernel"].dtype
    inputs = jax.random.normal(jax.random.key(0), (64, 4), jnp.float32).astype(dtype)
    hidden = jnp.tanh(inputs @ params["body"]["kernel"] + params["body"]["bias"])
    errors = hidden @ params["head"]["kernel"] - jnp.sin(inputs[:, :2])
    return jnp.mean(jnp.square(errors.astype(jnp.promote_types(dtype, jnp.float32))))
