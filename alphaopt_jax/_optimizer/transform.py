"""The public optimizer: an optax transformation around `step.step`."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import math
import os
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from alphaopt_jax._agent import agent as agent_lib
from alphaopt_jax._agent import conditional, network, rotation, sampling
from alphaopt_jax._agent.history import History
from alphaopt_jax._learning import online
from alphaopt_jax._optimizer import (
    arguments,
    checks,
    complex_numbers,
    safeguards,
    seeds,
    trees,
    units,
)
from alphaopt_jax._optimizer import layout as layouts
from alphaopt_jax._optimizer.plan import Scaling, StepSpec
from alphaopt_jax._optimizer.state import AgentConstants, AlphaOptState
from alphaopt_jax._optimizer.step import step
from alphaopt_jax.config import AlphaOptConfig, CoordinateSystem, pretrained_config


def alphaopt(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    *,
    agent: agent_lib.Agent | str | os.PathLike[str] | None = "base",
    learn: bool | None = None,
    num_steps: chex.Numeric | None = None,
    weight_decay: optax.ScalarOrSchedule = 0.0,
    mask: Any | Callable[[optax.Params], Any] | None = None,
    seed: int | chex.PRNGKey = 0,
    backoff: bool = True,
    coordinates: CoordinateSystem | None = None,
    config: AlphaOptConfig | None = None,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer that is a reinforcement-learning agent.

    One small policy observes the parameters (values, gradients, their history, the loss) and
    chooses learning rates: the default agent one for each leaf, in rotated coordinates; an agent
    may also choose one for each parameter. Its reward is the decrease of the loss. The pretrained
    agent was trained over many tasks and is frozen. A learning agent learns inside the same `jit`,
    from a sample of the parameters.

    Args:
      learning_rate: Multiplier of the rates that the agent chooses: a number, or a function from
        the number of updates to one. The default, 1, needs no tuning. It is not a step size as in
        other optimizers; a constant far from 1 gives a warning.
      agent: Name of a pretrained agent, path of a saved one, an `Agent`, or None for a fresh one.
      learn: True for an agent that learns while it optimizes. By default a fresh agent learns and a
        given one is frozen.
      num_steps: Planned number of updates, if known. Rates then fall to nearly zero at its end, and
        stay there. Otherwise they fall with the inverse square root of time.
      weight_decay: Strength of decoupled weight decay, multiplied by the agent's rates as by the
        learning rate in AdamW: a number, or a function from the number of updates to one.
      mask: Leaves with weight decay: a pytree of booleans like the parameters (or a prefix of it),
        or a function from parameters to one. All by default.
      seed: Seed of a fresh agent and of the exploration: a whole number, or a key of any
        implementation.
      backoff: Whether all rates are lowered for some tens of steps when the loss rises far above
        its recent best. False for a loss that rises for good reasons; the agent still observes it.
      coordinates: `"rotated"`: blocks of each matrix in the eigenbasis of its gradients' second
        moments. `"parameters"`: the parameters' own, with less time and memory per step, and
        more steps. By default those of the agent.
      config: Constants for research; by default `AlphaOptConfig()` for a fresh agent and
        `config.pretrained_config()` for a given one.

    Returns:
      An optax transformation. Its `update` needs `params`, and takes the loss as `value`.
      Parameters are read where there is a gradient, so a whole module may be passed. Without
      `value` the agent observes no loss, and still learns from gradients unless the reward is
      `"shared"`. A step with a non-finite loss or gradient changes nothing and is counted.

    Raises:
      ValueError: An argument is invalid; the message names it, the reason and the remedy.

    Warns:
      UserWarning: A constant `learning_rate` is below 0.2 or above 5.

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
    spec = _spec(agent, learn, num_steps, seed, backoff, coordinates, config)
    arguments.check_learning_rate(learning_rate, spec.step.config)
    arguments.check_weight_decay(weight_decay)
    arguments.check_mask(mask)

    def scaling(given: _Trees) -> Scaling:
        rate = jnp.asarray(_now(learning_rate, given.state))
        strength = _now(weight_decay, given.state)
        decays = checks.decays(strength, mask, given.updates, given.params)
        if decays is not None:  # In the order of the state's leaves.
            decays = jax.tree.leaves(trees.arrange(decays, given.state.gradient_average))
        return Scaling(jnp.abs(rate), -jnp.sign(rate), decays)

    return _transformation(spec, scaling)


def scale_by_alphaopt(
    *,
    agent: agent_lib.Agent | str | os.PathLike[str] | None = "base",
    learn: bool | None = None,
    num_steps: chex.Numeric | None = None,
    seed: int | chex.PRNGKey = 0,
    backoff: bool = True,
    coordinates: CoordinateSystem | None = None,
    config: AlphaOptConfig | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`alphaopt` without the sign, the multiplier and the weight decay, to build chains from.

    Args:
      agent: As in `alphaopt`.
      learn: As in `alphaopt`.
      num_steps: As in `alphaopt`.
      seed: As in `alphaopt`.
      backoff: As in `alphaopt`.
      coordinates: As in `alphaopt`.
      config: As in `alphaopt`.

    Returns:
      A transformation from gradients to ascent steps; follow it with `optax.scale(-1.0)`.

    Example:
      >>> import optax, alphaopt_jax as alphaopt
      >>> tx = optax.chain(alphaopt.scale_by_alphaopt(), optax.scale(-1.0))
    """
    spec = _spec(agent, learn, num_steps, seed, backoff, coordinates, config)
    one = jnp.ones(())
    return _transformation(spec, lambda given: Scaling(one, one, None))


class _OptimizerSpec(NamedTuple):
    """The resolved arguments of `alphaopt`; everything is constant.

    Attributes:
      agent: The given agent, or None.
      learns: Whether it learns.
      seed: As `seeds.resolve` returns it.
      step: The constants of every step.
    """

    agent: agent_lib.Agent | None
    learns: bool
    seed: int | chex.Array
    step: StepSpec


class _Trees(NamedTuple):
    """The trees that a user passes to `update`.

    Attributes:
      updates: Gradients.
      state: The state.
      params: Parameters; those without a gradient are not read.
    """

    updates: optax.Updates
    state: AlphaOptState
    params: optax.Params


def _transformation(
    spec: _OptimizerSpec, scaling: Callable[[_Trees], Scaling]
) -> optax.GradientTransformationExtraArgs:
    """The optax interface of `_init` and `step.step`."""
    # Jitted for calls of `update` outside of `jit`.
    jitted_step = jax.jit(functools.partial(step, spec.step))

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *misplaced: Any,
        value: chex.Numeric | None = None,
        **unused: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        del unused
        checks.check_call(updates, state, params, misplaced)
        split, real_params = complex_numbers.split(updates), complex_numbers.split(params)
        # Every gradient belongs to a parameter of the state; some parameters have no gradient.
        grads = trees.rearrange(split, state.gradient_average)
        if trees.is_like(grads, state.gradient_average):
            real_params = trees.arrange(real_params, state.gradient_average)
        checks.check(grads, state, real_params, value, learns=spec.learns)
        checks.warn_of_skips(state, wait=False)
        scaled = scaling(_Trees(updates, state, params))
        steps, state = jitted_step(grads, state, real_params, value, scaled)
        return complex_numbers.merge(trees.rearrange(steps, split)), state

    return optax.GradientTransformationExtraArgs(functools.partial(_init, spec), update)


def _init(spec: _OptimizerSpec, params: optax.Params) -> AlphaOptState:
    config = spec.step.config
    checks.check_leaves(params, "parameters")
    params = complex_numbers.split(params)
    leaves = jax.tree.leaves(params)
    agent_key, learner_key = jax.random.split(seeds.as_key(spec.seed))
    if spec.agent is None:
        agent = network.init_params(agent_key, network.make_network(config.agent))
    else:  # Copied, so that donating the state cannot delete the caller's agent.
        agent = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), spec.agent.params)
    arrays = network.flatten(agent)
    dtype = jnp.dtype(config.moment_dtype)
    sampled = sampling.of_shapes([leaf.shape for leaf in leaves])
    exploration = online.exploration_of(sampled, config.learning)
    blocks = layouts.rotation_of([leaf.shape for leaf in leaves], config)
    none = jnp.zeros((len(leaves),), jnp.float32)
    state = AlphaOptState(
        updates_made=jnp.zeros((), jnp.int32),
        updates_skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
        agent=arrays,
        gradient_average=optax.tree.zeros_like(params, dtype=dtype),
        squared_gradient_average=optax.tree.zeros_like(params, dtype=dtype),
        average=(
            optax.tree.zeros_like(params, dtype=jnp.float32)
            if spec.step.num_steps is None
            else None
        ),
        rate_multipliers=(
            optax.tree.zeros_like(params, dtype=jnp.float16)
            if config.agent.actor_hidden or spec.learns
            else None
        ),
        bases=rotation.init(blocks) if config.agent.block_size else None,
        leaf_rates=none,
        leaf_log_rates=jnp.zeros_like(none),
        sampled_moments=jnp.zeros((2, *sampled.positions.shape), jnp.float32),
        inverse_units=units.init([leaf.dtype for leaf in leaves]),
        constants=AgentConstants(
            jnp.asarray(config.agent.max_log_rate, jnp.float32),
            jnp.asarray(_finite_or_zero(config.agent.inverse_sqrt_steps), jnp.float32),
            jnp.asarray(config.agent.update_direction == "gradient", jnp.float32),
            jnp.asarray(config.agent.block_size, jnp.float32),
        ),
        history=History.empty(len(leaves)),
        safeguards=safeguards.init(len(leaves)),
        learner=online.init(arrays, exploration, learner_key) if spec.learns else None,
    )
    return conditional.varying_like(state, params)


def _spec(
    agent: agent_lib.Agent | str | os.PathLike[str] | None,
    learn: bool | None,
    num_steps: chex.Numeric | None,
    seed: int | chex.PRNGKey,
    backoff: bool,
    coordinates: CoordinateSystem | None,
    config: AlphaOptConfig | None,
) -> _OptimizerSpec:
    arguments.check_config(config)
    given = arguments.resolve_agent(agent)
    if config is None:
        config = AlphaOptConfig() if given is None else pretrained_config()
    if given is not None:
        config = dataclasses.replace(config, agent=given.config)
    block_size = arguments.resolve_coordinates(coordinates, config.agent.block_size)
    config = dataclasses.replace(
        config, agent=dataclasses.replace(config.agent, block_size=block_size)
    )
    return _OptimizerSpec(
        agent=given,
        learns=arguments.resolve_learn(learn, default=given is None),
        seed=seeds.resolve(seed),
        step=StepSpec(
            arguments.resolve_num_steps(num_steps), config, arguments.resolve_backoff(backoff)
        ),
    )


def _now(value: optax.ScalarOrSchedule, state: AlphaOptState) -> chex.Numeric:
    return value(state.updates_made) if callable(value) else value


def _finite_or_zero(steps: float) -> float:
    """The number; 0 for infinity, since `jax_debug_infs` forbids it in arrays."""
    return steps if math.isfinite(steps) else 0.0
