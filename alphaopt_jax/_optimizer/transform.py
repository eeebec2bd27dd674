"""The optimizer as users call it: one optax transformation. Its step is in `stepping.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import functools
import os
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from alphaopt_jax._agent import agent as agent_lib
from alphaopt_jax._agent import history
from alphaopt_jax._agent import network as network_lib
from alphaopt_jax._agent import sampling as sampling_lib
from alphaopt_jax._learning import online
from alphaopt_jax._optimizer import checks, complex_numbers, safeguards
from alphaopt_jax._optimizer import step as step_lib
from alphaopt_jax._optimizer.state import AgentLimits, AlphaOptState
from alphaopt_jax.config import AlphaOptConfig, adaptive_config


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
      `"shared"`. A step with a `value` that is not finite, or with a leaf of gradients the sum of
      whose squares is not, changes nothing and is counted.

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
        return _Scaling(-jnp.asarray(rate), checks.decays(weight_decay, mask, params))

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
    """What `alphaopt(...)` was called with, resolved; everything here is constant.

    Attributes:
      agent: The agent given, or None.
      learns: Whether it learns.
      seed: As in `alphaopt`.
      step: What every step is made with.
    """

    agent: agent_lib.Agent | None
    learns: bool
    seed: int | chex.PRNGKey
    step: step_lib.Design


def _transformation(
    design: _Design, scaling: Callable[[AlphaOptState, optax.Params], _Scaling]
) -> optax.GradientTransformationExtraArgs:
    """The optax face of `_init` and `stepping.step`."""
    # Jitted for those who call `update` outside of `jit`; inside it makes no difference.
    step = jax.jit(functools.partial(step_lib.step, design.step))

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        value: chex.Numeric | None = None,
        **unused: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        del unused
        checks.check(updates, state, params, value, learns=design.learns)
        return step(updates, state, params, value, *scaling(state, params))

    return optax.GradientTransformationExtraArgs(functools.partial(_init, design), update)


def _init(design: _Design, params: optax.Params) -> AlphaOptState:
    config, network = design.step.config, design.step.network
    params = complex_numbers.split(params)
    leaves = jax.tree.leaves(params)
    agent_key, learner_key = jax.random.split(_as_key(design.seed))
    if design.agent is None:
        agent = network_lib.init_params(agent_key, network)
    else:  # Copied, so that donating the state cannot delete the caller's agent.
        agent = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), design.agent.params)
    dtype = jnp.dtype(config.moment_dtype)
    sampling = sampling_lib.of_shapes([leaf.shape for leaf in leaves])
    none = jnp.zeros((len(leaves),), jnp.float32)
    return AlphaOptState(
        updates_made=jnp.zeros((), jnp.int32),
        updates_skipped=jnp.zeros((), jnp.int32),
        agent=agent,
        gradient_average=optax.tree.zeros_like(params, dtype=dtype),
        squared_gradient_average=optax.tree.zeros_like(params, dtype=dtype),
        relative_rates=optax.tree.zeros_like(params, dtype=jnp.float16),
        leaf_rates=none,
        leaf_log_rates=jnp.zeros_like(none),
        sampled_moments=jnp.zeros((2, *sampling.positions.shape), jnp.float32),
        limits=AgentLimits(
            jnp.asarray(network.max_log_rate, jnp.float32),
            jnp.asarray(design.step.anytime_steps, jnp.float32),
            jnp.asarray(config.direction == "gradient", jnp.float32),
        ),
        leaf_memory=history.empty_leaf_memory(len(leaves)),
        loss_history=history.empty_loss_history(),
        guard=safeguards.init(len(leaves)),
        learner=online.init(agent, sampling, learner_key, config) if design.learns else None,
    )


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
        network = network_lib.ActorCritic(
            config.actor_hidden, config.critic_hidden, config.max_log_rate
        )
        anytime_steps = config.anytime_steps
    else:
        network, anytime_steps = agent.network, agent.anytime_steps
        config = dataclasses.replace(config, direction=agent.direction)
    learns = (agent is None) if learn is None else bool(learn)
    step = step_lib.Design(network, anytime_steps, num_steps, config)
    return _Design(agent, learns, seed, step)


def _as_key(seed: chex.Numeric | chex.PRNGKey) -> chex.PRNGKey:
    seed = jnp.asarray(seed)
    if jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
        return seed
    return jax.random.wrap_key_data(seed) if seed.ndim else jax.random.key(seed.astype(jnp.int32))
