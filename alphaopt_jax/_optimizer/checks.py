"""Checks of the arguments that users pass to the optimizer."""

from __future__ import annotations

import math
from typing import Any
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax._agent.rotation import Bases, Rotation
from alphaopt_jax._optimizer import arguments, complex_numbers, trees
from alphaopt_jax._optimizer.state import AlphaOptState

_MANY_SKIPS = 100
_CALL = "call `update(grads, state, params, value=loss)`"


def check_call(
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None,
    misplaced: tuple[Any, ...],
) -> None:
    """Checks that each argument of `update` is in its place.

    Args:
      updates: The first argument, gradients.
      state: The second, an `AlphaOptState`.
      params: The third, parameters.
      misplaced: Further positional arguments; an error if there are any.

    Raises:
      ValueError: An argument is missing or in a wrong place; the message names it.
    """
    if isinstance(updates, AlphaOptState) or isinstance(params, AlphaOptState):
        raise ValueError(f"The optimizer state is the second argument of `update`: {_CALL}.")
    if params is None:
        raise ValueError(
            "alphaopt needs the current parameters, since its step is relative to their scale:"
            f" {_CALL}."
        )
    if misplaced:
        raise ValueError(f"The loss is passed to `update` by its name: {_CALL}.")
    if not isinstance(state, AlphaOptState):
        raise ValueError(
            f"alphaopt was given the state of another optimizer, a {type(state).__name__}. Pass"
            " the state that its own `init(params)` returned; one that was saved is to be restored"
            " into such a state as its target."
        )
    number, shapes = (
        [getattr(leaf, "shape", ()) for leaf in jax.tree.leaves(tree)] for tree in (params, updates)
    )
    if number == [()] and shapes not in ([()], []):
        raise ValueError(
            "The third argument of `update` is the parameters, but was one number. The loss is"
            f" passed by its name: {_CALL}."
        )


def check(
    grads: optax.Updates,
    state: AlphaOptState,
    params: optax.Params,
    value: Any,
    *,
    learns: bool,
) -> None:
    """Checks the arguments of `update`, before anything is computed.

    Args:
      grads: Gradients in the structure of the state, complex leaves split into real ones.
      state: The state.
      params: Floating-point parameters of the gradients' shapes, likewise.
      value: One number, or None.
      learns: Whether the optimizer's agent learns.

    Raises:
      ValueError: One of them is invalid; the message names it and the remedy.
    """
    if learns != (state.learner is not None):
        raise ValueError(
            "This optimizer and its state differ in whether the agent learns. Make the state with"
            " the `init` of the same `alphaopt(...)`."
        )
    _check_value(value)
    trees_by_name = {
        "gradients": grads,
        "parameters": params,
        "optimizer state": state.gradient_average,
    }
    for name in ("parameters", "gradients"):
        check_leaves(trees_by_name[name], name)
    shapes = {
        name: [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
        for name, tree in trees_by_name.items()
    }
    for name, found in shapes.items():
        if found != shapes["gradients"]:
            raise ValueError(
                f"The {name} and the gradients have leaves of different shapes: {found} and"
                f" {shapes['gradients']}. Initialize the optimizer with the parameters that it is"
                " to update."
            )


def check_bases(bases: Bases | None, blocks: Rotation | None) -> None:
    """Checks that a state's rotated coordinates are those of these parameters.

    Args:
      bases: Of the state.
      blocks: Of the parameters, or None for their own coordinates.

    Raises:
      ValueError: They differ, as in a state that was stored by an earlier version.
    """
    found = [] if bases is None else [jnp.shape(basis) for basis in bases.bases]
    if found != ([] if blocks is None else blocks.array_shapes):
        raise ValueError(
            "The optimizer state has other rotated coordinates than these parameters: an earlier"
            " version of alphaopt made it, or one with other `coordinates`. Go on with the"
            " parameters and a new state, `tx.init(params)`."
        )


def _check_value(value: Any) -> None:
    if value is None:
        return
    leaves = jax.tree.leaves(value)
    found = [jnp.shape(leaf) if hasattr(leaf, "shape") else () for leaf in leaves]
    if len(found) != 1 or math.prod(found[0]) != 1:
        raise ValueError(
            "`value` is the loss, one number, but was given as something with the leaves' shapes"
            f" {found}. With `has_aux=True` it is the first of the two; average a loss per example."
        )
    kind = trees.dtype_of(leaves[0])
    if not kind.startswith(("float", "bfloat", "int", "uint", "bool")):
        raise ValueError(f"`value` is the loss, one real number, but was given as a {kind}.")


def check_leaves(tree: chex.ArrayTree, name: str) -> None:
    """Checks that all leaves are floating-point or complex.

    Args:
      tree: Gradients or parameters.
      name: "gradients" or "parameters", for the message.

    Raises:
      ValueError: A leaf is not a floating-point or complex number or array.
    """
    for path, leaf in jax.tree.leaves_with_path(tree):
        if not trees.is_inexact(leaf):
            raise ValueError(
                "alphaopt moves floating-point and complex numbers, but the leaf"
                f" {jax.tree_util.keystr(path)} of the {name} is of type {trees.dtype_of(leaf)}."
                " Keep it out of what is differentiated and optimized:"
                " `eqx.filter(model, eqx.is_inexact_array)` in Equinox,"
                " `nnx.Optimizer(..., wrt=nnx.Param)` in Flax, `optax.partition` elsewhere."
            )


def decays(
    weight_decay: chex.Numeric, mask: Any, updates: optax.Updates, params: optax.Params
) -> chex.ArrayTree | None:
    """Weight decay of every leaf.

    Args:
      weight_decay: Strength of the decay, a scalar.
      mask: Leaves with weight decay, as in `alphaopt`.
      updates: The gradients. Parameters without one do not decay.
      params: The parameters.

    Returns:
      A tree like the parameters of one scalar for every real leaf (two for a complex one), or None
      without weight decay.

    Raises:
      ValueError: The mask does not fit the parameters.
    """
    if isinstance(weight_decay, (int, float)) and weight_decay == 0:
        return None
    params = trees.restrict(params, updates)
    mask = True if mask is None else mask
    mask = mask(params) if arguments.is_function(mask) else mask
    arguments.check_mask(mask)
    decays_leaf = _broadcast(mask, params)

    def strength(leaf: chex.Array, decay: chex.Numeric) -> chex.ArrayTree:
        return jax.tree.map(lambda _: decay * weight_decay, complex_numbers.split(leaf))

    return jax.tree.map(strength, params, decays_leaf)


def _broadcast(mask: Any, params: optax.Params) -> chex.ArrayTree:
    """The mask with one entry for each parameter, in their structure."""
    by_name = trees.by_name(mask, params)
    if by_name is not None:
        return by_name
    try:
        return jax.tree.broadcast(mask, params)
    except ValueError as error:
        raise ValueError(
            "`mask` must be a pytree of booleans like the parameters, or a prefix of it, but has"
            f" the structure {jax.tree.structure(mask)} where the parameters have"
            f" {jax.tree.structure(params)}."
        ) from error


def warn_of_skips(state: AlphaOptState, *, wait: bool) -> None:
    """Warns if a training skips step after step; not while the state is traced.

    Args:
      state: The state.
      wait: True to wait for a state that is still being computed.
    """
    (skipped,) = jax.tree.leaves(state.skipped_in_a_row)  # nnx.Optimizer wraps arrays.
    is_traced = isinstance(skipped, jax.core.Tracer)
    if is_traced or not (wait or getattr(skipped, "is_ready", lambda: True)()):
        return
    if np.any(jax.device_get(skipped) >= _MANY_SKIPS):  # An explicit transfer.
        warnings.warn(  # A constant text, so that Python shows it once.
            f"AlphaOpt has skipped the last {_MANY_SKIPS} steps or more, since the loss or a"
            " gradient was not finite, or a gradient's square was not in float32: the parameters"
            " do not change. Look for NaN or infinity in the loss (jax_debug_nans finds it), or"
            " divide the loss by a constant.",
            stacklevel=3,
        )
