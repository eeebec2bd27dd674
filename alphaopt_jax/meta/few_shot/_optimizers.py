"""Optimizers of networks on episodes: frozen agents, with learned factors of their rates."""

from __future__ import annotations

from typing import Any

import chex
import jax
import optax

from alphaopt_jax._agent import agent as agent_lib
from alphaopt_jax._optimizer import inspection, transform
from alphaopt_jax.baselines import maml
from alphaopt_jax.meta.few_shot.initialization import Initialization

# Rate factors are learned at a tenth of their value, like learning rates of gradient descent.
_FACTOR_SCALE = 0.1


def frozen_optimizer(
    agent: agent_lib.Agent, num_steps: int, rate_factors: chex.ArrayTree | None = None
) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer of a meta-test, which acts through the agent and does not learn.

    Args:
      agent: The agent.
      num_steps: Number of training steps, which the agent observes.
      rate_factors: Factors of the agent's rates, as in `Initialization`.

    Example:
      >>> from alphaopt_jax import load_agent
      >>> tx = frozen_optimizer(load_agent("base"), num_steps=100)
    """
    tx = transform.alphaopt(agent=agent, learn=False, num_steps=num_steps)
    return tx if rate_factors is None else optax.chain(tx, maml.scale_by_factors(rate_factors))


def with_constant_rates(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Makes an agent's rates constants under differentiation; the steps stay the same.

    Initial parameters then learn from the gradients along the trajectory, and only reinforcement
    learning changes the rates.

    Args:
      optimizer: A frozen agent with rates that multiply the gradient.
    """
    tx = optax.with_extra_args_support(optimizer)

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        constants = jax.lax.stop_gradient((updates, params, extra))
        _, state = tx.update(constants[0], state, constants[1], **constants[2])
        rates = inspection.learning_rates(state, constants[1])
        return jax.tree.map(lambda rate, grad: -rate * grad, rates, updates), state

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def with_factors(
    optimizer: optax.GradientTransformation, rate_factors: chex.ArrayTree | None, name: str
) -> maml.InnerOptimizer:
    """Returns an optimizer with rate factors, to be learned with a network's initial parameters.

    Args:
      optimizer: The optimizer without factors.
      rate_factors: Factors to start from; None starts from ones.
      name: Name of the inner optimizer.
    """

    def optimizer_fn(factors: chex.ArrayTree) -> optax.GradientTransformation:
        factors = optax.tree.scale(1.0 / _FACTOR_SCALE, factors)
        return optax.chain(optimizer, maml.scale_by_factors(factors))

    def init(params: chex.ArrayTree) -> chex.ArrayTree:
        factors = optax.tree.ones_like(params) if rate_factors is None else rate_factors
        return optax.tree.scale(_FACTOR_SCALE, factors)

    return maml.InnerOptimizer(name, optimizer_fn, init)


def as_initialization(learned: maml.Learned) -> Initialization:
    """Returns the initial parameters, and the rate factors at their own scale."""
    factors = optax.tree.scale(1.0 / _FACTOR_SCALE, learned.optimizer_params)
    return Initialization(learned.params, factors if jax.tree.leaves(factors) else None)
