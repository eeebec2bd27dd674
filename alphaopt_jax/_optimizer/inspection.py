"""Reading the optimizer's state: learning rates, metrics, the agent; and starting a new episode."""

from __future__ import annotations

import math

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import optax

from alphaopt_jax._agent import action, agent, network, rotation
from alphaopt_jax._agent.history import History
from alphaopt_jax._optimizer import averages, checks, complex_numbers, safeguards, trees
from alphaopt_jax._optimizer import state as state_lib

_MIN_FLOAT16 = 6e-8  # The smallest positive number.


def learning_rates(state: optax.OptState, params: optax.Params) -> optax.Params:
    """The learning rate of every parameter at the last step.

    Args:
      state: State of `alphaopt`, or of a chain with it.
      params: The parameters, for their structure.

    Returns:
      Positive `float32` rates in a pytree like the parameters. A complex parameter has one rate for
      its real and one for its imaginary part, as a complex number. Zeros before the first step.
      None in place of other leaves, such as the functions of a module.

    Raises:
      ValueError: The state belongs to other parameters.

    Example:
      >>> import jax.numpy as jnp, alphaopt_jax as alphaopt
      >>> tx, params = alphaopt.alphaopt(), {"w": jnp.ones(2)}
      >>> _, state = tx.update({"w": jnp.ones(2)}, tx.init(params), params)
      >>> alphaopt.learning_rates(state, params)["w"].shape
      (2,)
    """
    state = state_lib.find(state)
    params = jax.tree.map(lambda leaf: leaf if trees.is_inexact(leaf) else None, params)
    params = complex_numbers.split(params)
    rates, count = _rates(state), trees.count(params)
    if count != len(rates):
        raise ValueError(
            f"The state belongs to {len(rates)} arrays, but params has {count}. Pass the"
            " parameters that AlphaOpt optimizes; with optax.partition or optax.masked these are a"
            " part of all parameters."
        )
    named = jax.tree.unflatten(jax.tree.structure(state.gradient_average), rates)
    return complex_numbers.merge(trees.arrange(named, params))


def metrics(state: optax.OptState) -> dict[str, Float[Array, ""]]:
    """Scalars to log.

    Args:
      state: State of `alphaopt`, or of a chain with it.

    Returns:
      A flat dict of `float32[]`: `mean_learning_rate` over all parameters, `mean_log_rate` (mean
      action), `updates_made`, `updates_skipped`, `skipped_in_a_row` (those since the last update),
      `backoff` (the safeguards' factor of all rates: 1 unless the loss has risen far above its
      recent best). A learning agent adds `reward` (estimated decrease of the loss by the last
      step), `policy_loss`, `value_loss`, `rounds` of learning, and `mean_level` (mean of the
      learned part of log rates).

    Warns:
      UserWarning: The last 100 steps or more were skipped.
    """
    state = state_lib.find(state)
    checks.warn_of_skips(state, wait=True)
    rates = _rates(state)
    count = max(sum(rate.size for rate in rates), 1)
    log_rates = [
        rate.size * jnp.asarray(state.leaf_log_rates)[index] for index, rate in enumerate(rates)
    ]
    for index, leaf in enumerate(jax.tree.leaves(state.rate_multipliers)):
        log_rates[index] += jnp.sum(jnp.log(jnp.maximum(leaf.astype(jnp.float32), _MIN_FLOAT16)))
    decided = jnp.asarray(state.updates_made) > 0
    figures = {
        "mean_learning_rate": sum((rate.sum() for rate in rates), start=jnp.zeros(())) / count,
        "mean_log_rate": jnp.where(decided, sum(log_rates, start=jnp.zeros(())) / count, 0.0),
        "updates_made": state.updates_made,
        "updates_skipped": state.updates_skipped,
        "skipped_in_a_row": state.skipped_in_a_row,
        "backoff": state.safeguards.backoff,
    }
    learner = state.learner
    if learner is not None:
        shares = jnp.array([rate.size / count for rate in rates], jnp.float32)
        figures |= {
            "reward": learner.reward,
            "policy_loss": learner.losses.policy_loss,
            "value_loss": learner.losses.value_loss,
            "rounds": learner.rounds,
            "mean_level": jnp.sum(shares * jnp.asarray(learner.levels.levels)),
        }
    return {name: jnp.asarray(figure, jnp.float32) for name, figure in figures.items()}


def _rates(state: state_lib.AlphaOptState) -> list[chex.Array]:
    """The applied rates of each leaf."""
    log_rates, bound = (
        jnp.asarray(each) for each in (state.leaf_log_rates, state.constants.max_log_rate)
    )
    rates = action.LeafRates(
        jnp.asarray(state.leaf_rates), action.max_multipliers(log_rates, bound)
    )
    if state.rate_multipliers is None:
        moments = jax.tree.leaves(state.gradient_average)
        return [jnp.full(leaf.shape, rates.rates[index]) for index, leaf in enumerate(moments)]
    return [
        rates.applied(jnp.asarray(leaf), index)
        for index, leaf in enumerate(jax.tree.leaves(state.rate_multipliers))
    ]


def eval_params(state: optax.OptState, params: optax.Params) -> optax.Params:
    """Parameters for the evaluation of a training without `num_steps`.

    An average over about the last ninth of the training so far, for evaluation at any time: the
    rates of such a training never fall far, and an average removes the noise. With `num_steps` the
    parameters themselves. Batch statistics must be collected again at the averaged parameters.

    Args:
      state: State of `alphaopt`, or of a chain with it.
      params: The parameters of the training; continue the training with these.

    Returns:
      A pytree like `params`, of the same types.

    Raises:
      ValueError: The state belongs to other parameters.

    Example:
      >>> import jax.numpy as jnp, optax, alphaopt_jax as alphaopt
      >>> tx, params = alphaopt.alphaopt(), {"w": jnp.ones(2)}
      >>> state = tx.init(params)
      >>> for _ in range(20):
      ...     updates, state = tx.update({"w": params["w"]}, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> averaged = alphaopt.eval_params(state, params)
      >>> bool(averaged["w"][0] > params["w"][0])
      True
    """
    state = state_lib.find(state)
    if state.average is None:
        return params
    split = complex_numbers.split(params)
    own = trees.arrange(split, state.average)
    if not trees.is_like(own, state.average):
        raise ValueError(
            f"The state belongs to {trees.count(state.average)} arrays, but params has"
            f" {trees.count(split)} others. Pass the parameters that AlphaOpt optimizes; with"
            " optax.partition or optax.masked these are a part of all parameters."
        )
    weight = averages.weight(state.updates_made)

    def averaged(average: chex.Array, param: chex.Array) -> chex.Array:
        newest = averages.update(jnp.asarray(average), jnp.asarray(param), weight)
        return newest.astype(param.dtype)

    return complex_numbers.merge(trees.overlay(split, jax.tree.map(averaged, state.average, own)))


def agent_from_state(state: optax.OptState) -> agent.Agent:
    """Extracts the present agent from the optimizer, to save it or to use it elsewhere.

    Args:
      state: State of `alphaopt`, or of a chain with it.

    Returns:
      The `Agent`.
    """
    found = state_lib.find(state)
    constants = [float(leaf) for leaf in jax.tree.leaves(found.constants)]
    max_log_rate, inverse_sqrt_steps, along_gradient, block_size = constants
    return agent.Agent(
        # nnx.Optimizer wraps each array in a variable.
        network.unflatten([jnp.array(leaf) for leaf in jax.tree.leaves(found.agent)]),
        max_log_rate=max_log_rate,
        inverse_sqrt_steps=inverse_sqrt_steps or math.inf,
        update_direction="gradient" if along_gradient else "adam",
        block_size=int(block_size),
    )


def new_episode(state: optax.OptState) -> optax.OptState:
    """Starts another training with the same agent.

    The agent, its optimizer and its random key are kept. Everything that belongs to the finished
    training (moments, history, rollout) is reset. States of other transformations in a chain are
    unchanged.

    Args:
      state: State of `alphaopt`, or of a chain with it; also the `opt_state` of an `nnx.Optimizer`,
        with its arrays in variables.

    Returns:
      The state for new parameters of the same shapes, in the containers of `state`. Works under
      `jit`.

    Example:
      >>> import jax.numpy as jnp, alphaopt_jax as alphaopt
      >>> tx, params = alphaopt.alphaopt(), jnp.ones(2)
      >>> _, state = tx.update(params, tx.init(params), params)
      >>> int(state.updates_made), int(alphaopt.new_episode(state).updates_made)
      (1, 0)
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
        )
    new = blank._replace(
        agent=old.agent,
        constants=old.constants,
        bases=None if old.bases is None else rotation.blank(old.bases),
        inverse_units=jnp.ones_like(old.inverse_units),
        history=History.empty(len(old.leaf_rates)),
        safeguards=safeguards.init(len(old.leaf_rates)),
        learner=learner,
    )
    # In the variables of the old state, if it has any.
    new = jax.tree.unflatten(jax.tree.structure(old), jax.tree.leaves(new))
    return state_lib.replace(state, new)
