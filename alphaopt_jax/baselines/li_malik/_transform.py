"""The learned optimizers as optax transformations. They apply the policy's mean actions."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import chex
import jax
from jax import flatten_util
import jax.numpy as jnp
import optax

from alphaopt_jax.baselines.li_malik import _coordinate_features, _history, _policies


class LiMalik2016State(NamedTuple):
    """State of `li_malik_2016`.

    Attributes:
      history: The last points: `num_points` `int32[]`, `objective` `float32[]`, `gradient`
        `float32[d]`, `changes` `float32[H]`, `gradients` `float32[H, d]`.
    """

    history: _history.History


def li_malik_2016(
    policy: str | os.PathLike[str] | _policies.Policy2016,
) -> optax.GradientTransformationExtraArgs:
    """The full-vector optimizer of *Learning to Optimize*, without hyperparameters.

    It only optimizes functions with the number of parameters that it was trained on. Parameters may
    be any tree and are concatenated in the order of `jax.tree.leaves`; a network must have the tree
    that the policy was trained on. After a loss that is not finite, all updates are not finite.

    Args:
      policy: A path, the name of a pretrained policy, or a policy.

    Returns:
      An optax transformation with state `LiMalik2016State`; `update` needs the loss as `value`.

    Raises:
      ValueError: By `init` or `update`, if the number of parameters is not the policy's dimension,
        or `value` is missing.

    References:
      Li & Malik 2016, *Learning to Optimize*.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = li_malik_2016("li-malik-logistic")
      >>> params = jnp.ones(4)
      >>> state = tx.init(params)
      >>> updates, state = tx.update(params, state, params, value=jnp.sum(params**2) / 2)
      >>> updates.shape, int(state.history.num_points)
      ((4,), 1)
    """
    learned = policy if isinstance(policy, _policies.Policy2016) else _policies.load_2016(policy)

    def init(params: optax.Params) -> LiMalik2016State:
        # `optax.tree.map_params` calls `init` with a tree without leaves.
        if jax.tree.leaves(params):
            _check_dimension(params, learned)
        return LiMalik2016State(_history.empty_history(learned.dimension, learned.history))

    def update(
        updates: optax.Updates,
        state: LiMalik2016State,
        params: optax.Params | None = None,
        *,
        value: chex.Numeric | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LiMalik2016State]:
        del params, extra_args
        loss = _as_loss(value, "li_malik_2016")
        _check_dimension(updates, learned)
        gradient, _ = flatten_util.ravel_pytree(optax.tree.cast(updates, jnp.float32))
        history = _history.append(
            state.history, loss, gradient, current_gradient=learned.current_gradient
        )
        step = _policies.step_2016(learned.params, _history.features(history))
        return _unravel_like(step, updates), LiMalik2016State(history)

    return optax.GradientTransformationExtraArgs(init, update)


class LiMalik2017State(NamedTuple):
    """State of `li_malik_2017`.

    Attributes:
      num_points: Points so far, `int32[]`.
      objective: Loss at the latest point, `float32[]`.
      gradient: Gradient at the latest point, a tree like the parameters, of `float32`.
      last_step: Step from the latest point, a tree like the parameters.
      previous_step: Step to the latest point, a tree like the parameters.
      cell: Cell state of the LSTM, a tree like the parameters with leaves `float32[*shape, W]`.
      hidden: Hidden state of the LSTM, likewise.
    """

    num_points: chex.Array
    objective: chex.Array
    gradient: chex.ArrayTree
    last_step: chex.ArrayTree
    previous_step: chex.ArrayTree
    cell: chex.ArrayTree
    hidden: chex.ArrayTree


def li_malik_2017(
    policy: str | os.PathLike[str] | _policies.Policy2017,
) -> optax.GradientTransformationExtraArgs:
    """The coordinatewise optimizer of *Learning to Optimize Neural Nets*, without hyperparameters.

    An LSTM computes the step of every parameter, with shared weights and a state per parameter. At
    the first step all its features are 0, by their definition. The features use the optimizer's own
    steps, not the steps after later transformations of a chain.

    Args:
      policy: A path, the name of a pretrained policy, or a policy.

    Returns:
      An optax transformation with state `LiMalik2017State`; `update` needs the loss as `value`.

    Raises:
      ValueError: By `update`, if `value` is missing.

    References:
      Li & Malik 2017, *Learning to Optimize Neural Nets*.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = li_malik_2017("li-malik-2017")
      >>> params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
      >>> state = tx.init(params)
      >>> updates, state = tx.update(params, state, params, value=4.5)
      >>> updates["w"].shape, state.cell["b"].shape
      ((2, 3), (3, 128))
    """
    learned = policy if isinstance(policy, _policies.Policy2017) else _policies.load_2017(policy)

    def init(params: optax.Params) -> LiMalik2017State:
        def zeros(*trailing: int) -> chex.ArrayTree:
            return jax.tree.map(
                lambda leaf: jnp.zeros((*leaf.shape, *trailing), jnp.float32), params
            )

        return LiMalik2017State(
            num_points=jnp.zeros((), jnp.int32),
            objective=jnp.zeros((), jnp.float32),
            gradient=zeros(),
            last_step=zeros(),
            previous_step=zeros(),
            cell=zeros(learned.width),
            hidden=zeros(learned.width),
        )

    def update(
        updates: optax.Updates,
        state: LiMalik2017State,
        params: optax.Params | None = None,
        *,
        value: chex.Numeric | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LiMalik2017State]:
        del params, extra_args
        return _update_2017(learned, updates, state, _as_loss(value, "li_malik_2017"))

    return optax.GradientTransformationExtraArgs(init, update)


def _update_2017(
    policy: _policies.Policy2017, updates: optax.Updates, state: LiMalik2017State, loss: chex.Array
) -> tuple[optax.Updates, LiMalik2017State]:
    num_points = state.num_points + 1
    gradient = optax.tree.cast(updates, jnp.float32)

    def update_leaf(*leaves: chex.Array) -> tuple[chex.Array, chex.Array, chex.Array]:
        gradient, previous_gradient, last_step, previous_step, cell, hidden = leaves
        recent = _coordinate_features.RecentPoints(
            num_points=num_points,
            objective=loss,
            previous_objective=state.objective,
            gradient=gradient,
            previous_gradient=previous_gradient,
            last_step=last_step,
            previous_step=previous_step,
        )
        features = _coordinate_features.observation_features(recent)
        (cell, hidden), step = _policies.step_2017(policy.params, (cell, hidden), features)
        return step, cell, hidden

    results = jax.tree.map(
        update_leaf,
        gradient,
        state.gradient,
        state.last_step,
        state.previous_step,
        state.cell,
        state.hidden,
    )
    step, cell, hidden = jax.tree.transpose(
        jax.tree.structure(gradient), jax.tree.structure((0, 0, 0)), results
    )
    new_state = LiMalik2017State(num_points, loss, gradient, step, state.last_step, cell, hidden)
    return optax.tree.cast_like(step, updates), new_state


def _as_loss(value: chex.Numeric | None, name: str) -> chex.Array:
    if value is None:
        raise ValueError(
            f"`{name}` needs the loss. Call `tx.update(grads, state, params, value=loss)`, with the"
            " loss that belongs to the gradients; `jax.value_and_grad` returns both."
        )
    return jnp.asarray(value, jnp.float32)


def _check_dimension(tree: chex.ArrayTree, policy: _policies.Policy2016) -> None:
    size = sum(jnp.size(leaf) for leaf in jax.tree.leaves(tree))
    if size != policy.dimension:
        raise ValueError(
            f"This policy of `li_malik_2016` was trained on functions of {policy.dimension}"
            f" parameters, but there are {size} parameters. Train a policy for this dimension with"
            " `train_2016`, or use `li_malik_2017`, which works on any number of parameters."
        )


def _unravel_like(vector: chex.Array, tree: chex.ArrayTree) -> chex.ArrayTree:
    """Splits a vector into leaves with the shapes and dtypes of a tree."""
    leaves, structure = jax.tree.flatten(tree)
    parts, begin = [], 0
    for leaf in leaves:
        end = begin + jnp.size(leaf)
        parts.append(vector[begin:end].reshape(jnp.shape(leaf)).astype(leaf.dtype))
        begin = end
    return jax.tree.unflatten(structure, parts)
