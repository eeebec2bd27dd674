"""The optimizer as users call it: an optax transformation around `step.step`."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import os
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from alphaopt_jax._agent import agent as agent_lib
from alphaopt_jax._agent import network, sampling
from alphaopt_jax._agent.history import History
from alphaopt_jax._learning import online
from alphaopt_jax._optimizer import checks, complex_numbers, safeguards
from alphaopt_jax._optimizer.state import AgentConstants, AlphaOptState
from alphaopt_jax._optimizer.step import Scaling, StepSpec, step
from alphaopt_jax.config import AlphaOptConfig, pretrained_config


def alphaopt(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    *,
    agent: agent_lib.Agent | str | os.PathLike[str] | None = "base",
    learn: bool | None = None,
    num_steps: int | None = None,
    weight_decay: float = 0.0,
    mask: Any | Callable[[optax.Params], Any] | None = None,
    seed: int | chex.PRNGKey = 0,
    backoff: bool = True,
    config: AlphaOptConfig | None = None,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer that is a reinforcement-learning agent.

    One small policy observes every parameter (its value, its gradient, their history, the loss) and
    chooses that parameter's learning rate. Its reward is the decrease of the loss. The pretrained
    agent was trained over many tasks and is frozen. A learning agent learns inside the same `jit`,
    from a sample of the parameters.

    Args:
      learning_rate: Multiplies the rates that the agent chooses. The default, 1, needs no tuning.
      agent: Name of a pretrained agent, path of a saved one, an `Agent`, or None for a fresh one.
      learn: Whether the agent learns while it optimizes. By default a fresh agent does and a given
        one does not.
      num_steps: Planned number of updates, if known. Rates then fall to nearly zero at its end, and
        stay there. Otherwise they fall with the inverse square root of time.
      weight_decay: Strength of decoupled weight decay, multiplied by the agent's rates as by the
        learning rate in AdamW.
      mask: Leaves with weight decay: a pytree of booleans like the parameters (or a prefix of it),
        or a function from parameters to one. All by default.
      seed: Seed or key of a fresh agent and of the exploration.
      backoff: Whether all rates are lowered for some tens of steps when the loss rises far above
        its recent best. False for a loss that rises for good reasons; the agent still observes it.
      config: Constants for research; by default `AlphaOptConfig()` for a fresh agent and
        `config.pretrained_config()` for a given one.

    Returns:
      An optax transformation. Its `update` needs `params`, and takes the loss as `value`. Without
      `value` the agent observes no loss, and still learns from gradients unless the reward is
      `"shared"`. A step whose loss or gradients are not finite changes nothing and is counted.

    Raises:
      ValueError: An argument is invalid; the message says which, why, and what to do.

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

    def scaling(state: AlphaOptState, params: optax.Params) -> Scaling:
        rate = learning_rate(state.updates_made) if callable(learning_rate) else learning_rate
        rate = jnp.asarray(rate)
        return Scaling(jnp.abs(rate), -jnp.sign(rate), checks.decays(weight_decay, mask, params))

    spec = _spec(agent, learn, num_steps, seed, config)
    return _transformation(spec._replace(step=spec.step._replace(backoff=backoff)), scaling)


def scale_by_alphaopt(
    *,
    agent: agent_lib.Agent | str | os.PathLike[str] | None = "base",
    learn: bool | None = None,
    num_steps: int | None = None,
    seed: int | chex.PRNGKey = 0,
    backoff: bool = True,
    config: AlphaOptConfig | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`alphaopt` without the sign, the multiplier and the weight decay, to build chains from.

    Args:
      agent: As in `alphaopt`.
      learn: As in `alphaopt`.
      num_steps: As in `alphaopt`.
      seed: As in `alphaopt`.
      backoff: As in `alphaopt`.
      config: As in `alphaopt`.

    Returns:
      A transformation from gradients to ascent steps; follow it with `optax.scale(-1.0)`.

    Example:
      >>> import optax, alphaopt_jax as alphaopt
      >>> tx = optax.chain(alphaopt.scale_by_alphaopt(), optax.scale(-1.0))
    """
    spec = _spec(agent, learn, num_steps, seed, config)
    spec = spec._replace(step=spec.step._replace(backoff=backoff))
    one = jnp.ones(())
    return _transformation(spec, lambda state, params: Scaling(one, one, None))


class _OptimizerSpec(NamedTuple):
    """The resolved arguments of `alphaopt`; everything is constant.

    Attributes:
      agent: The given agent, or None.
      learns: Whether it learns.
      seed: As in `alphaopt`.
      step: The constants of every step.
    """

    agent: agent_lib.Agent | None
    learns: bool
    seed: int | chex.PRNGKey
    step: StepSpec


def _transformation(
    spec: _OptimizerSpec, scaling: Callable[[AlphaOptState, optax.Params], Scaling]
) -> optax.GradientTransformationExtraArgs:
    """The optax interface of `_init` and `step.step`."""
    # Jitted for calls of `update` outside of `jit`.
    jitted_step = jax.jit(functools.partial(step, spec.step))

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        value: chex.Numeric | None = None,
        **unused: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        del unused
        grads, real_params = complex_numbers.split(updates), complex_numbers.split(params)
        checks.check(grads, state, real_params, value, learns=spec.learns)
        steps, state = jitted_step(grads, state, real_params, value, scaling(state, params))
        return complex_numbers.merge(steps), state

    return optax.GradientTransformationExtraArgs(functools.partial(_init, spec), update)


def _init(spec: _OptimizerSpec, params: optax.Params) -> AlphaOptState:
    config = spec.step.config
    params = complex_numbers.split(params)
    leaves = jax.tree.leaves(params)
    agent_key, learner_key = jax.random.split(_as_key(spec.seed))
    if spec.agent is None:
        agent = network.init_params(agent_key, network.make_network(config.agent))
    else:  # Copied, so that donating the state cannot delete the caller's agent.
        agent = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), spec.agent.params)
    dtype = jnp.dtype(config.moment_dtype)
    sampled = sampling.of_shapes([leaf.shape for leaf in leaves])
    exploration = online.exploration_of(sampled, config.learning)
    none = jnp.zeros((len(leaves),), jnp.float32)
    return AlphaOptState(
        updates_made=jnp.zeros((), jnp.int32),
        updates_skipped=jnp.zeros((), jnp.int32),
        agent=agent,
        gradient_average=optax.tree.zeros_like(params, dtype=dtype),
        squared_gradient_average=optax.tree.zeros_like(params, dtype=dtype),
        rate_multipliers=optax.tree.zeros_like(params, dtype=jnp.float16),
        leaf_rates=none,
        leaf_log_rates=jnp.zeros_like(none),
        sampled_moments=jnp.zeros((2, *sampled.positions.shape), jnp.float32),
        constants=AgentConstants(
            jnp.asarray(config.agent.max_log_rate, jnp.float32),
            jnp.asarray(config.agent.inverse_sqrt_steps, jnp.float32),
            jnp.asarray(config.agent.update_direction == "gradient", jnp.float32),
        ),
        history=History.empty(len(leaves)),
        safeguards=safeguards.init(len(leaves)),
        learner=online.init(agent, exploration, learner_key) if spec.learns else None,
    )


def _spec(
    agent: agent_lib.Agent | str | os.PathLike[str] | None,
    learn: bool | None,
    num_steps: int | None,
    seed: int | chex.PRNGKey,
    config: AlphaOptConfig | None,
) -> _OptimizerSpec:
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
        config = AlphaOptConfig() if agent is None else pretrained_config()
    if agent is not None:
        config = dataclasses.replace(config, agent=agent.config)
    learns = (agent is None) if learn is None else bool(learn)
    return _OptimizerSpec(agent, learns, seed, StepSpec(num_steps, config))


def _as_key(seed: chex.Numeric | chex.PRNGKey) -> chex.PRNGKey:
    seed = jnp.asarray(seed)
    if jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
        return seed
    return jax.random.wrap_key_data(seed) if seed.ndim else jax.random.key(seed.astype(jnp.int32))
