"""Looking into the optimizer's state: the rates chosen, figures to log, the agent itself."""

from __future__ import annotations

from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import optax

from alphaopt_jax._agent import action, agent, history
from alphaopt_jax._optimizer import complex_numbers, safeguards
from alphaopt_jax._optimizer import state as state_lib

_SMALLEST = 6e-8  # Of the positive numbers of float16.


def learning_rates(state: optax.OptState, params: optax.Params) -> optax.Params:
    """The learning rate of every parameter at the last step.

    Args:
      state: State of `alphaopt`, or of a chain with it.
      params: The parameters, for their structure.

    Returns:
      `float32` rates, positive, in a pytree like the parameters (complex parameters have a rate for
      the real and one for the imaginary part, as a complex number). Zeros before the first step.

    Raises:
      ValueError: The state is not that of these parameters.

    Example:
      >>> import jax.numpy as jnp, alphaopt_jax as alphaopt
      >>> tx, params = alphaopt.alphaopt(), {"w": jnp.ones(2)}
      >>> _, state = tx.update({"w": jnp.ones(2)}, tx.init(params), params)
      >>> alphaopt.learning_rates(state, params)["w"].shape
      (2,)
    """
    state = state_lib.find(state)
    leaves, structure = jax.tree.flatten(complex_numbers.split(params))
    rates = _rates(state)
    if len(leaves) != len(rates):
        raise ValueError(
            f"The state is that of {len(rates)} arrays, but params has {len(leaves)}. Pass the"
            " parameters that AlphaOpt optimizes; under optax.partition or optax.masked these are a"
            " part of them."
        )
    return complex_numbers.merge(jax.tree.unflatten(structure, rates))


def metrics(state: optax.OptState) -> dict[str, Float[Array, ""]]:
    """Scalars to log.

    Args:
      state: State of `alphaopt`, or of a chain with it.

    Returns:
      A flat dict of `float32[]`: `mean_learning_rate` over all parameters, `mean_log_rate` (mean
      action), `updates_made`, `updates_skipped`, `brake` (what the guard multiplied all rates by:
      1 unless the loss has risen far above its recent best); and of an agent that learns also
      `reward` (its estimate of how much the last step decreased the loss), `policy_loss`,
      `value_loss`, `rounds` of learning.
    """
    state = state_lib.find(state)
    rates = _rates(state)
    count = max(sum(rate.size for rate in rates), 1)
    log_rates = [
        leaf.size * state.leaf_log_rates[index]
        + jnp.sum(jnp.log(jnp.maximum(leaf.astype(jnp.float32), _SMALLEST)))
        for index, leaf in enumerate(jax.tree.leaves(state.relative_rates))
    ]
    decided = jnp.asarray(state.updates_made) > 0
    figures = {
        "mean_learning_rate": sum((rate.sum() for rate in rates), start=jnp.zeros(())) / count,
        "mean_log_rate": jnp.where(decided, sum(log_rates, start=jnp.zeros(())) / count, 0.0),
        "updates_made": state.updates_made,
        "updates_skipped": state.updates_skipped,
        "brake": state.guard.brake,
    }
    learner = state.learner
    if learner is not None:
        figures |= {
            "reward": learner.reward,
            "policy_loss": learner.losses.policy,
            "value_loss": learner.losses.value,
            "rounds": learner.rounds,
        }
    return {name: jnp.asarray(figure, jnp.float32) for name, figure in figures.items()}


def _rates(state: state_lib.AlphaOptState) -> list[chex.Array]:
    """The rates of every leaf."""
    largest = action.largest_relative(state.leaf_log_rates, state.limits.max_log_rate)
    return [
        state.leaf_rates[index] * jnp.minimum(leaf.astype(jnp.float32), largest[index])
        for index, leaf in enumerate(jax.tree.leaves(state.relative_rates))
    ]


def agent_from_state(state: optax.OptState) -> agent.Agent:
    """Takes the agent out of the optimizer, as it is now, to save it or to use it elsewhere.

    Args:
      state: State of `alphaopt`, or of a chain with it.

    Returns:
      The `Agent`.
    """
    found = state_lib.find(state)
    max_log_rate, anytime_steps, along_gradient = jax.tree.leaves(found.limits)
    return agent.Agent(
        _plain(found.agent),
        max_log_rate=float(max_log_rate),
        anytime_steps=float(anytime_steps),
        direction="gradient" if along_gradient else None,
    )


def new_episode(state: optax.OptState) -> optax.OptState:
    """Starts another training with the same agent.

    What the agent learned, its own optimizer and its random key are kept; everything that belongs
    to the finished training (moments, loss history, rollout) is forgotten. States of other
    transformations in a chain are left alone.

    Args:
      state: State of `alphaopt`, or of a chain with it.

    Returns:
      The state for new parameters of the same shapes. Can be jitted.
    """
    old = state_lib.find(state)
    blank = jax.tree.map(jnp.zeros_like, old)
    learner = old.learner
    if learner is not None:
        learner = blank.learner._replace(
            key_data=learner.key_data,
            prior=learner.prior,
            agent_optimizer=learner.agent_optimizer,
            rounds=learner.rounds,
            losses=learner.losses,
            loss=jnp.full_like(learner.loss, jnp.nan),
        )
    new = blank._replace(
        agent=old.agent,
        limits=old.limits,
        loss_history=history.empty_loss_history(),
        guard=safeguards.init(len(old.leaf_rates)),
        learner=learner,
    )
    return state_lib.replace(state, new)


def _plain(tree: chex.ArrayTree) -> chex.ArrayTree:
    """Copies nested dicts of arrays, taking out of its variable what nnx.Optimizer wrapped."""
    if isinstance(tree, Mapping):
        return {name: _plain(node) for name, node in tree.items()}
    (array,) = jax.tree.leaves(tree)
    return jnp.array(array)
