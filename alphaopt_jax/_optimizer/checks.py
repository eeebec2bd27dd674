"""Checks of the arguments that users pass to the optimizer."""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from alphaopt_jax._optimizer import complex_numbers
from alphaopt_jax._optimizer.state import AlphaOptState


def check(
    grads: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None,
    value: chex.Numeric | None,
    *,
    learns: bool,
) -> None:
    """Checks the arguments of `update`, before anything is computed.

    Args:
      grads: Gradients, complex leaves split into real ones.
      state: An `AlphaOptState` for parameters like these.
      params: Floating-point parameters of the gradients' shapes, likewise split.
      value: One number, or None.
      learns: Whether the optimizer's agent learns.

    Raises:
      ValueError: One of them is invalid; the message says which and what to do.
    """
    if params is None:
        raise ValueError(
            "alphaopt needs the current parameters, since its step is relative to their scale:"
            " call `update(grads, state, params, value=loss)`."
        )
    if not isinstance(state, AlphaOptState):
        raise ValueError(
            f"alphaopt was given the state of another optimizer, a {type(state).__name__}. Pass"
            " the state that its own `init(params)` returned; one that was saved is to be restored"
            " into such a state as its target."
        )
    if learns != (state.learner is not None):
        raise ValueError(
            "This optimizer and its state differ in whether the agent learns. Make the state with"
            " the `init` of the same `alphaopt(...)`."
        )
    found = [jnp.shape(leaf) if hasattr(leaf, "shape") else () for leaf in jax.tree.leaves(value)]
    if value is not None and (len(found) != 1 or math.prod(found[0]) != 1):
        raise ValueError(
            "`value` is the loss, one number, but was given as something with the leaves' shapes"
            f" {found}. With `has_aux=True` it is the first of the two; average a loss per example."
        )
    trees = {
        "gradients": grads,
        "parameters": params,
        "optimizer state": state.gradient_average,
    }
    for name in ("parameters", "gradients"):
        for path, leaf in jax.tree.leaves_with_path(trees[name]):
            if not jnp.issubdtype(leaf.dtype, jnp.inexact):
                raise ValueError(
                    "alphaopt moves floating-point and complex numbers, but the leaf"
                    f" {jax.tree_util.keystr(path)} of the {name} is of type {leaf.dtype}. Keep it"
                    " out of what is differentiated and optimized."
                )
    shapes = {name: [jnp.shape(leaf) for leaf in jax.tree.leaves(trees[name])] for name in trees}
    for name, found in shapes.items():
        if found != shapes["gradients"]:
            raise ValueError(
                f"The {name} and the gradients have leaves of different shapes: {found} and"
                f" {shapes['gradients']}. Initialise the optimizer with the parameters that it is"
                " to update."
            )


def decays(
    weight_decay: chex.Numeric, mask: Any, params: optax.Params
) -> Sequence[chex.Numeric] | None:
    """Weight decay of every leaf.

    Args:
      weight_decay: Its strength, a scalar.
      mask: Which leaves decay, as in `alphaopt`.
      params: The parameters.

    Returns:
      One scalar for every real leaf (two for a complex one), or None where nothing ever decays.

    Raises:
      ValueError: The mask does not fit the parameters.
    """
    if isinstance(weight_decay, (int, float)) and weight_decay == 0:
        return None
    mask = True if mask is None else mask
    mask = mask(params) if callable(mask) else mask
    try:
        decays_leaf = jax.tree.leaves(jax.tree.broadcast(mask, params))
    except ValueError as error:
        raise ValueError(
            "`mask` must be a pytree of booleans like the parameters, or a prefix of it, but has"
            f" the structure {jax.tree.structure(mask)} where the parameters have"
            f" {jax.tree.structure(params)}."
        ) from error
    strengths = []
    for leaf, decay in zip(jax.tree.leaves(params), decays_leaf, strict=True):
        parts = len(jax.tree.leaves(complex_numbers.split(leaf)))
        strengths.extend([decay * weight_decay] * parts)
    return strengths
