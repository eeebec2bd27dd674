"""The learned optimizers as optax transformations. At test time the mean action acts."""

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
    """What the full-vector optimizer remembers.

    Attributes:
      history: Of the points seen so far: `points` `int32[]`, `objective` `float32[]`, `gradient`
        `float32[d]`, `changes` `float32[H]`, `gradients` `float32[H, d]`.
    """

    history: _history.History


def li_malik_2016(
    policy: str | os.PathLike[str] | _policies.Policy2016,
) -> optax.GradientTransformationExtraArgs:
    """The full-vector optimizer of *Learning to Optimize*. There is nothing to set.

    It optimizes functions of the dimension that it was trained on, and no others. The parameters
    may be any tree; they are strung together in the order of `jax.tree.leaves`, so that for a
    network it must be the tree that it was trained on. A loss that is not finite makes all that
    follows not finite.

    Args:
      policy: A path, the name of a shipped policy, or a policy.

    Returns:
      An optax transformation whose `update` needs the loss as `value`; `LiMalik2016State` is its
      state.

    Raises:
      ValueError: From `init` or `update`: the parameters' number is not the policy's dimension, or
        `value` is missing.

    References:
      Li & Malik 2016, *Learning to Optimize*.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> scales = {"features": jnp.ones(8), "step": jnp.ones(())}
      >>> policy = _policies.Policy2016(_policies.init_2016(jax.random.key(0), 5, 3, scales))
      >>> tx = li_malik_2016(policy)
      >>> params = jnp.ones(3)
      >>> state = tx.init(params)
      >>> updates, state = tx.update(params, state, params, value=jnp.sum(params**2) / 2)
      >>> updates.shape, int(state.history.points)
      ((3,), 1)
    """
    learned = policy if isinstance(policy, _policies.Policy2016) else _policies.load_2016(policy)

    def init(params: optax.Params) -> LiMalik2016State:
        # `optax.tree.map_params` asks with a tree that has no leaves.
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
        history = _history.observe(
            state.history, loss, gradient, current_gradient=learned.current_gradient
        )
        step = _policies.step_2016(learned.params, _history.features(history))
        return _like(step, updates), LiMalik2016State(history)

    return optax.GradientTransformationExtraArgs(init, update)


class LiMalik2017State(NamedTuple):
    """What the coordinatewise optimizer remembers.

    Attributes:
      points: How many were seen so far, `int32[]`.
      objective: At the latest of them, `float32[]`.
      gradient: There, a tree like the parameters, of `float32`.
      last_step: From there to the next point, a tree likewise.
      step_before: The step before that, a tree likewise.
      cell: The LSTM's memory, a tree likewise, each leaf `float32[*shape, W]`.
      hidden: The LSTM's output, a tree likewise, each leaf `float32[*shape, W]`.
    """

    points: chex.Array
    objective: chex.Array
    gradient: chex.ArrayTree
    last_step: chex.ArrayTree
    step_before: chex.ArrayTree
    cell: chex.ArrayTree
    hidden: chex.ArrayTree


def li_malik_2017(
    policy: str | os.PathLike[str] | _policies.Policy2017,
) -> optax.GradientTransformationExtraArgs:
    """The coordinatewise optimizer of *Learning to Optimize Neural Nets*. There is nothing to set.

    An LSTM with a memory of its own for every parameter moves it. At the first step it sees
    nothing at all, by the definition of its features. Steps are those that it has chosen itself:
    what a chain does to them later, it does not see.

    Args:
      policy: A path, the name of a shipped policy, or a policy.

    Returns:
      An optax transformation whose `update` needs the loss as `value`; `LiMalik2017State` is its
      state.

    Raises:
      ValueError: From `update`: `value` is missing.

    References:
      Li & Malik 2017, *Learning to Optimize Neural Nets*.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> scales = {"features": jnp.ones(3), "step": jnp.ones(())}
      >>> policy = _policies.Policy2017(_policies.init_2017(jax.random.key(0), 8, scales))
      >>> tx = li_malik_2017(policy)
      >>> params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
      >>> state = tx.init(params)
      >>> updates, state = tx.update(params, state, params, value=4.5)
      >>> updates["w"].shape, state.cell["b"].shape
      ((2, 3), (3, 8))
    """
    learned = policy if isinstance(policy, _policies.Policy2017) else _policies.load_2017(policy)

    def init(params: optax.Params) -> LiMalik2017State:
        def zeros(*more: int) -> chex.ArrayTree:
            return jax.tree.map(lambda leaf: jnp.zeros((*leaf.shape, *more), jnp.float32), params)

        return LiMalik2017State(
            points=jnp.zeros((), jnp.int32),
            objective=jnp.zeros((), jnp.float32),
            gradient=zeros(),
            last_step=zeros(),
            step_before=zeros(),
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
        loss = _as_loss(value, "li_malik_2017")
        points = state.points + 1
        gradient = optax.tree.cast(updates, jnp.float32)

        def of_leaf(*leaves: chex.Array) -> tuple[chex.Array, chex.Array, chex.Array]:
            gradient, previous, last_step, step_before, cell, hidden = leaves
            features = _coordinate_features.observation_features(
                points, loss, state.objective, gradient, previous, last_step, step_before
            )
            (cell, hidden), step = _policies.step_2017(learned.params, (cell, hidden), features)
            return step, cell, hidden

        moved = jax.tree.map(
            of_leaf,
            gradient,
            state.gradient,
            state.last_step,
            state.step_before,
            state.cell,
            state.hidden,
        )
        step, cell, hidden = jax.tree.transpose(
            jax.tree.structure(gradient), jax.tree.structure((0, 0, 0)), moved
        )
        new_state = LiMalik2017State(points, loss, gradient, step, state.last_step, cell, hidden)
        return optax.tree.cast_like(step, updates), new_state

    return optax.GradientTransformationExtraArgs(init, update)


def _as_loss(value: chex.Numeric | None, name: str) -> chex.Array:
    if value is None:
        raise ValueError(
            f"{name} sees the loss, and `update` was not given it. Call"
            " `tx.update(grads, state, params, value=loss)`, with the loss that the gradients are"
            " of; `jax.value_and_grad` gives both."
        )
    return jnp.asarray(value, jnp.float32)


def _check_dimension(tree: chex.ArrayTree, policy: _policies.Policy2016) -> None:
    size = sum(jnp.size(leaf) for leaf in jax.tree.leaves(tree))
    if size != policy.dimension:
        raise ValueError(
            f"This policy of li_malik_2016 was trained on functions of {policy.dimension}"
            f" parameters, and these are {size}. Train one for this dimension with `train_2016`, or"
            " use `li_malik_2017`, which works on any number of parameters."
        )


def _like(vector: chex.Array, tree: chex.ArrayTree) -> chex.ArrayTree:
    """A vector cut into a tree's leaves, in their shapes and types."""
    leaves, structure = jax.tree.flatten(tree)
    parts, begin = [], 0
    for leaf in leaves:
        end = begin + jnp.size(leaf)
        parts.append(vector[begin:end].reshape(jnp.shape(leaf)).astype(leaf.dtype))
        begin = end
    return jax.tree.unflatten(structure, parts)
