"""The optimizer: observe, act, step; then credit and learn. One optax transformation.

`alphaopt` is what users call. The step itself, `_step`, reads from top to bottom like the sentence
above.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
import math
import os
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from alphaopt_jax import (
    acting,
    arguments,
    complex_numbers,
    explorers,
    memory,
    observation,
    policy,
)
from alphaopt_jax import agent as agent_lib
from alphaopt_jax import learner as learner_lib
from alphaopt_jax.config import AlphaOptConfig, adaptive_config
from alphaopt_jax.state import AgentLimits, AlphaOptState


def alphaopt(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    *,
    agent: agent_lib.Agent | str | os.PathLike[str] | None = "base",
    learn: bool | None = None,
    num_steps: int | None = None,
    weight_decay: float = 0.0,
    mask: Any | Callable[[optax.Params], Any] | None = None,
    seed: int | chex.PRNGKey = 0,
    config: AlphaOptConfig | None = None,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer that is a reinforcement-learning agent.

    At every step one small policy looks at every parameter (its value, its gradient, their history,
    the loss) and chooses that parameter's learning rate. Its reward is the decrease of the
    loss. The shipped agent has learned over many tasks and is frozen; an agent that learns does so
    inside the same `jit`, from a sample of the parameters.

    Args:
      learning_rate: Multiplies the rates that the agent chooses. Nothing to tune: leave it at 1.
      agent: Who chooses: the name of a shipped agent or the path of a saved one, an `Agent`, or
        None for a fresh one.
      learn: Whether the agent learns while it optimizes. By default a fresh one does and a given
        one does not.
      num_steps: The planned number of updates, if you know it. Rates then fall to nearly zero at
        its end, and stay there. Without it those of the shipped agent fall with the square root of
        time.
      weight_decay: Strength of decoupled weight decay, which the agent's rates multiply, as
        the learning rate does in AdamW.
      mask: Which leaves decay: a pytree of booleans like the parameters (or a prefix of it), or a
        function from parameters to one. By default all.
      seed: Seed or key of the fresh agent and of the exploration.
      config: Constants for research; by default `AlphaOptConfig()` for a fresh agent and
        `config.adaptive_config()` for a given one.

    Returns:
      An optax transformation. Its `update` needs `params`, and takes the loss as `value`; without
      `value` the agent sees no loss, and still learns from gradients unless the credit is
      `"shared"`. A step with a non-finite gradient or `value` changes nothing and is counted.

    Raises:
      ValueError: The agent, the mask or an argument does not fit; the message says which and why.

    Example:
      >>> import jax, jax.numpy as jnp, optax, alphaopt_jax as alphaopt
      >>> loss = lambda params: jnp.sum(jnp.square(params - 3.0))
      >>> tx = alphaopt.alphaopt()
      >>> params = jnp.zeros(4)
      >>> state = tx.init(params)
      >>> @jax.jit
      ... def train_step(params, state):
      ...     value, grads = jax.value_and_grad(loss)(params)
      ...     updates, state = tx.update(grads, state, params, value=value)
      ...     return optax.apply_updates(params, updates), state
      >>> for _ in range(500):
      ...     params, state = train_step(params, state)
      >>> bool(loss(params) < 1e-2)
      True
    """

    def scaling(state: AlphaOptState, params: optax.Params) -> _Scaling:
        rate = learning_rate(state.updates_made) if callable(learning_rate) else learning_rate
        return _Scaling(-jnp.asarray(rate), arguments.decays(weight_decay, mask, params))

    return _transformation(_design(agent, learn, num_steps, seed, config), scaling)


def scale_by_alphaopt(
    *,
    agent: agent_lib.Agent | str | os.PathLike[str] | None = "base",
    learn: bool | None = None,
    num_steps: int | None = None,
    seed: int | chex.PRNGKey = 0,
    config: AlphaOptConfig | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`alphaopt` without the sign, the multiplier and the weight decay, to build chains from.

    Args:
      agent: As in `alphaopt`.
      learn: As in `alphaopt`.
      num_steps: As in `alphaopt`.
      seed: As in `alphaopt`.
      config: As in `alphaopt`.

    Returns:
      A transformation from gradients to ascent steps; follow it with `optax.scale(-1.0)`.

    Example:
      >>> import optax, alphaopt_jax as alphaopt
      >>> tx = optax.chain(alphaopt.scale_by_alphaopt(), optax.scale(-1.0))
    """
    design = _design(agent, learn, num_steps, seed, config)
    return _transformation(design, lambda state, params: _Scaling(jnp.ones(()), None))


class _Scaling(NamedTuple):
    """What the user's own arguments make of the agent's rates.

    Attributes:
      multiplier: What the rates are multiplied by, a scalar; negative to descend.
      decays: Weight decay of every leaf, or None.
    """

    multiplier: chex.Numeric
    decays: Sequence[chex.Numeric] | None


class _Design(NamedTuple):
    """What `alphaopt(...)` was called with, resolved; everything here is constant."""

    agent: agent_lib.Agent | None
    network: policy.ActorCritic
    anytime_steps: float
    learns: bool
    num_steps: int | None
    seed: int | chex.PRNGKey
    config: AlphaOptConfig


def _transformation(
    design: _Design, scaling: Callable[[AlphaOptState, optax.Params], _Scaling]
) -> optax.GradientTransformationExtraArgs:
    """The optax face of `_init` and `_step`."""

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        value: chex.Numeric | None = None,
        **unused: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        del unused
        arguments.check(updates, state, params, learns=design.learns)
        return _step(design, updates, state, params, value, scaling(state, params))

    return optax.GradientTransformationExtraArgs(functools.partial(_init, design), update)


def _init(design: _Design, params: optax.Params) -> AlphaOptState:
    params = complex_numbers.split(params)
    leaves = jax.tree.leaves(params)
    agent_key, learner_key = jax.random.split(_as_key(design.seed))
    if design.agent is None:
        agent = policy.init_params(agent_key, design.network)
    else:  # Copied, so that donating the state cannot delete the caller's agent.
        agent = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), design.agent.params)
    direction = design.config.direction
    sizes = [math.prod(leaf.shape) for leaf in leaves]
    return AlphaOptState(
        updates_made=jnp.zeros((), jnp.int32),
        updates_skipped=jnp.zeros((), jnp.int32),
        agent=agent,
        gradient_average=optax.tree.zeros_like(params, dtype=jnp.float32),
        squared_gradient_average=optax.tree.zeros_like(params, dtype=jnp.float32),
        log_rates=optax.tree.zeros_like(params, dtype=jnp.float16),
        leaf_scales=jnp.zeros((len(leaves),), jnp.float32),
        multiplier=jnp.zeros((), jnp.float32),
        schedule=jnp.ones((), jnp.float32),
        limits=AgentLimits(
            jnp.asarray(design.network.max_log_rate, jnp.float32),
            jnp.asarray(design.anytime_steps, jnp.float32),
        ),
        leaf_memory=memory.empty_leaf_memory(len(leaves)),
        loss_history=memory.empty_loss_history(),
        direction=None if direction is None else direction.init(params),
        learner=learner_lib.init(agent, sizes, learner_key, design.config)
        if design.learns
        else None,
    )


def _step(
    design: _Design,
    updates: optax.Updates,
    state: AlphaOptState,
    params: optax.Params,
    value: chex.Numeric | None,
    scaling: _Scaling,
) -> tuple[optax.Updates, AlphaOptState]:
    """One step of the environment and of the agent.

    Args:
      design: Constants.
      updates: Gradients.
      state: The state.
      params: Parameters, shaped like the gradients.
      value: The loss, a scalar, or None.
      scaling: What the user's own arguments make of the agent's rates.

    Returns:
      The updates, shaped and typed like the gradients, and the new state.
    """
    config, network = design.config, design.network
    split_updates = complex_numbers.split(updates)
    grads = _float32_leaves(split_updates)
    loss = None if value is None else jnp.asarray(value).astype(jnp.float32).reshape(())
    multiplier = jnp.asarray(scaling.multiplier).astype(jnp.float32)
    number = (state.updates_made + 1).astype(jnp.float32)

    # Observe.
    leaves = [
        observation.accumulate(*leaf, config)
        for leaf in zip(
            _float32_leaves(complex_numbers.split(params)),
            grads,
            jax.tree.leaves(state.gradient_average),
            jax.tree.leaves(state.squared_gradient_average),
            strict=True,
        )
    ]
    sight = acting.see(
        leaves, loss, state.leaf_memory, state.loss_history, number, design.num_steps, config
    )
    views = sight.views

    # Act.
    log_rates, leaf_log_rates = acting.act(state.agent, network, sight)
    learner, slot = state.learner, state.updates_made % config.rollout_length
    if learner is not None and leaves:
        learner = learner_lib.reward(learner, grads, loss, slot, config)
        learner, noise = learner_lib.explore(
            learner, state.agent, network, leaves, sight, number, slot, config
        )
        counts = explorers.allocate([grad.size for grad in grads], config.num_explorers)
        log_rates = explorers.add(log_rates, learner.explorers, noise, counts)
    log_rates = [leaf.astype(jnp.float16) for leaf in log_rates]

    # Step.
    directions, direction_state = _directions(design, split_updates, views, state, params)
    schedule = observation.schedule(number, design.num_steps, design.anytime_steps)
    rates = [
        rates_of_leaf(log_rate, view.statistics.scale, multiplier, schedule, config)
        for log_rate, view in zip(log_rates, views, strict=True)
    ]
    steps = [rate * direction for rate, direction in zip(rates, directions, strict=True)]

    # Learn, from the steps before this one.
    agent = state.agent
    if learner is not None and leaves:
        # What is made of an ascent step further down the chain is a descent.
        taken = -jnp.sign(multiplier) * explorers.gather(steps, learner.explorers, counts)
        learner = learner._replace(explorer_steps=taken)
        agent, learner = learner_lib.learn_when_full(learner, agent, network, counts, slot, config)

    if scaling.decays is not None:
        steps = [
            step + rate * decay * leaf.param
            for step, rate, decay, leaf in zip(steps, rates, scaling.decays, leaves, strict=True)
        ]

    def like_state(leaves: Sequence[chex.Array]) -> chex.ArrayTree:
        return jax.tree.unflatten(jax.tree.structure(state.gradient_average), leaves)

    new_state = AlphaOptState(
        updates_made=state.updates_made + 1,
        updates_skipped=state.updates_skipped,
        agent=agent,
        gradient_average=like_state([leaf.first_moment for leaf in leaves]),
        squared_gradient_average=like_state([leaf.second_moment for leaf in leaves]),
        log_rates=like_state(log_rates),
        leaf_scales=_stack([view.statistics.scale for view in views]),
        multiplier=multiplier,
        schedule=schedule,
        limits=state.limits,
        leaf_memory=memory.remember_rates(sight.memory, leaf_log_rates),
        loss_history=sight.history,
        direction=direction_state,
        learner=learner,
    )
    skipped = state._replace(updates_skipped=state.updates_skipped + 1)
    usable = _all_finite(grads, loss)
    new_state = jax.tree.map(lambda new, old: jnp.where(usable, new, old), new_state, skipped)
    steps = [
        jnp.where(usable, step, 0.0).astype(leaf.dtype)
        for step, leaf in zip(steps, jax.tree.leaves(split_updates), strict=True)
    ]
    like_updates = jax.tree.unflatten(jax.tree.structure(split_updates), steps)
    return complex_numbers.merge(like_updates), new_state


def rates_of_leaf(
    log_rate: chex.Array,
    scale: chex.Array,
    multiplier: chex.Array,
    schedule: chex.Array,
    config: AlphaOptConfig,
) -> chex.Array:
    """From actions to learning rates, signed like `multiplier`.

    Args:
      log_rate: The actions, any shape and float type.
      scale: Scale of the leaf's parameters, `float32[]`.
      multiplier: The user's `learning_rate`, `float32[]`.
      schedule: The factor of `observation.schedule`, `float32[]`.
      config: The constants.

    Returns:
      `float32` rates of the actions' shape.
    """
    base = jnp.minimum(jnp.abs(multiplier) * config.relative_step, config.max_relative_step)
    return jnp.sign(multiplier) * scale * schedule * base * jnp.exp(log_rate.astype(jnp.float32))


def _design(
    agent: agent_lib.Agent | str | os.PathLike[str] | None,
    learn: bool | None,
    num_steps: int | None,
    seed: int | chex.PRNGKey,
    config: AlphaOptConfig | None,
) -> _Design:
    if isinstance(agent, (str, os.PathLike)):
        agent = agent_lib.load_agent(agent)
    if agent is not None and not isinstance(agent, agent_lib.Agent):
        raise ValueError(
            "`agent` must be an Agent, the name or path of one, or None for a fresh one; got a"
            f" {type(agent).__name__}."
        )
    if isinstance(num_steps, int) and num_steps < 1:
        raise ValueError(f"`num_steps` is the planned number of updates, at least 1: {num_steps}.")
    if config is None:
        config = AlphaOptConfig() if agent is None else adaptive_config()
    if agent is None:
        network = policy.ActorCritic(config.actor_hidden, config.critic_hidden, config.max_log_rate)
        anytime_steps = config.anytime_steps
    else:
        network, anytime_steps = agent.network, agent.anytime_steps
    learns = (agent is None) if learn is None else bool(learn)
    return _Design(agent, network, anytime_steps, learns, num_steps, seed, config)


def _directions(
    design: _Design,
    updates: optax.Updates,
    views: Sequence[observation.LeafView],
    state: AlphaOptState,
    params: optax.Params,
) -> tuple[list[chex.Array], optax.OptState | None]:
    """What the rates multiply, one array a leaf."""
    direction = design.config.direction
    if direction is None:
        return [view.normalized.momentum for view in views], None
    moved, new_state = direction.update(updates, state.direction, complex_numbers.split(params))
    return _float32_leaves(moved), new_state


def _all_finite(grads: Sequence[chex.Array], loss: chex.Array | None) -> chex.Array:
    # A sum of sizes is finite where all its terms are, and cheaper than asking each one.
    finite = [jnp.isfinite(jnp.sum(jnp.abs(leaf))) for leaf in grads]
    if loss is not None:
        finite.append(jnp.isfinite(loss))
    return functools.reduce(jnp.logical_and, finite, jnp.asarray(True))


def _float32_leaves(tree: chex.ArrayTree) -> list[chex.Array]:
    return [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(tree)]


def _stack(values: Sequence[chex.Array]) -> chex.Array:
    return jnp.stack(values) if values else jnp.zeros((0,), jnp.float32)


def _as_key(seed: chex.Numeric | chex.PRNGKey) -> chex.PRNGKey:
    seed = jnp.asarray(seed)
    if jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
        return seed
    return jax.random.wrap_key_data(seed) if seed.ndim else jax.random.key(seed.astype(jnp.int32))
