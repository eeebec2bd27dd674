"""The networks compared by `benchmarks.rl_vs_rnn`, each as an optimizer.

Two of them take AlphaOpt's observation of every parameter and output the logarithm of its learning
rate: AlphaOpt's actor, without recurrent state, and the coordinatewise LSTM of Andrychowicz et al.
The third is that LSTM as published: it takes the gradient alone and outputs the step itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, NamedTuple, Protocol

import chex
import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax._agent import action, observation
from alphaopt_jax._agent import network as network_lib
from alphaopt_jax._agent import statistics as statistics_lib
from alphaopt_jax._agent.history import History
from alphaopt_jax._agent.leaves import FlatLeaves
from alphaopt_jax._agent.schedule import Clock
from alphaopt_jax.baselines.l2l import LSTMConfig, _network
from alphaopt_jax.config import AgentConfig, StepConfig

MAX_LOG_RATE = 4.0
_AGENT = AgentConfig(
    leaf_hidden=32, actor_hidden=8, max_log_rate=MAX_LOG_RATE, inverse_sqrt_steps=np.inf
)
_STEP = StepConfig()


class LearnedOptimizer(Protocol):
    """A trainable optimizer."""

    @property
    def name(self) -> str:
        """Its name in tables."""

    @property
    def init(self) -> Callable[[chex.PRNGKey], chex.ArrayTree]:
        """From a key (consumed) to fresh parameters."""

    def optimizer(
        self, params: chex.ArrayTree, *, num_steps: int
    ) -> optax.GradientTransformationExtraArgs:
        """The optimizer with these parameters, for a planned number of updates."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A coordinatewise policy, with or without recurrent state. N parameters, F features.

    Attributes:
      name: Its name in tables.
      init: From a key (consumed) to fresh parameters, which give the default rates.
      zero_carry: From N to the recurrent state before the first step, leaves of `[N, ...]`.
      apply: From parameters, a carry and observations `float32[N, F]` to the next carry and mean
        log rates, `float32[N]`. Rows are independent.
    """

    name: str
    init: Callable[[chex.PRNGKey], chex.ArrayTree]
    zero_carry: Callable[[int], Any]
    apply: Callable[[chex.ArrayTree, Any, chex.Array], tuple[Any, chex.Array]]

    def optimizer(
        self, params: chex.ArrayTree, *, num_steps: int
    ) -> optax.GradientTransformationExtraArgs:
        """See `as_optimizer`."""
        return as_optimizer(self, params, num_steps)


@dataclasses.dataclass(frozen=True)
class PublishedLSTM:
    """The LSTM of Andrychowicz et al. with its own input and its own steps.

    Attributes:
      config: Its constants.
      name: Its name in tables.
    """

    config: LSTMConfig = dataclasses.field(default_factory=LSTMConfig)
    name: str = "LSTM as published"

    @property
    def init(self) -> Callable[[chex.PRNGKey], chex.ArrayTree]:
        """From a key (consumed) to fresh parameters."""
        return self.config.init

    def optimizer(
        self, params: chex.ArrayTree, *, num_steps: int
    ) -> optax.GradientTransformationExtraArgs:
        """The LSTM with these parameters; it ignores the number of steps."""
        del num_steps
        return optax.with_extra_args_support(self.config.transformation(params))


class PolicyState(NamedTuple):
    """State of a network as an optimizer.

    Attributes:
      step: `float32[]`, updates made.
      first_moment: `float32[N]`.
      second_moment: `float32[N]`.
      history: Moving averages of the leaves' statistics and of the loss.
      carry: The recurrent state of the network.
      observations: `float32[N, F]`, its observations at the last step.
      means: `float32[N]`, its log rates at that step, without noise.
    """

    step: chex.Array
    first_moment: chex.Array
    second_moment: chex.Array
    history: History
    carry: Any
    observations: chex.Array
    means: chex.Array


def feedforward() -> Network:
    """AlphaOpt's actor."""
    actor = network_lib.Actor(_AGENT.actor_hidden, _AGENT.leaf_hidden, MAX_LOG_RATE)
    example = jnp.zeros((1, observation.NUM_FEATURES))
    return Network(
        "AlphaOpt's policy",
        init=lambda key: actor.init(key, example)["params"],
        zero_carry=lambda size: (),
        apply=lambda params, carry, seen: (carry, actor.apply({"params": params}, seen)),
    )


def recurrent(widths: Sequence[int] = (20, 20)) -> Network:
    """The coordinatewise LSTM."""
    lstm = _network.CoordinatewiseLSTM(tuple(widths))

    def init(key: chex.PRNGKey) -> chex.ArrayTree:
        params = _network.init_params(key, widths, observation.NUM_FEATURES)
        return {**params, "output": jax.tree.map(jnp.zeros_like, params["output"])}

    def apply(params: chex.ArrayTree, carry: Any, seen: chex.Array) -> tuple[Any, chex.Array]:
        carry, output = lstm.apply({"params": params}, carry, seen)
        return carry, network_lib.bound(output, MAX_LOG_RATE)

    return Network("LSTM", init, lambda size: lstm.zero_carry((size,)), apply)


def as_optimizer(
    network: Network, params: chex.ArrayTree, num_steps: int, config: StepConfig = _STEP
) -> optax.GradientTransformationExtraArgs:
    """A network as an optimizer.

    Args:
      network: The network.
      params: Its parameters, which may be traced.
      num_steps: Planned number of updates.
      config: Constants of the step.

    Returns:
      An optax transformation. It takes the loss as `value`, and `noise`, `float32[N]` added to the
      log rates.
    """

    def init(optimized: optax.Params) -> PolicyState:
        leaves = FlatLeaves.of(optimized)
        size = sum(leaves.sizes)
        return PolicyState(
            step=jnp.zeros(()),
            first_moment=jnp.zeros((size,)),
            second_moment=jnp.zeros((size,)),
            history=History.empty(len(leaves.sizes)),
            carry=network.zero_carry(size),
            observations=jnp.zeros((size, observation.NUM_FEATURES)),
            means=jnp.zeros((size,)),
        )

    def update(
        updates: optax.Updates,
        state: PolicyState,
        optimized: optax.Params | None = None,
        *,
        value: chex.Numeric,
        noise: chex.Numeric = 0.0,
        **unused: Any,
    ) -> tuple[optax.Updates, PolicyState]:
        del unused
        leaves = FlatLeaves.of(updates)
        grads, unravel = flatten_util.ravel_pytree(updates)
        flat, _ = flatten_util.ravel_pytree(optimized)
        clock = Clock(state.step + 1.0, num_steps, _AGENT.inverse_sqrt_steps)

        coordinates = statistics_lib.accumulate(
            flat, grads, state.first_moment, state.second_moment, config
        )
        loss = state.history.loss.append(jnp.asarray(value, jnp.float32))
        observed = observation.observe(
            coordinates, leaves, state.history._replace(loss=loss), clock, config
        )
        observations = all_features(observed, leaves)
        carry, means = network.apply(params, state.carry, observations)
        log_rates = means + noise
        scales = leaves.expand(observed.statistics.scale)
        factors = action.RateFactors(1.0, clock.schedule())
        rates = action.learning_rates(log_rates, scales, factors, _AGENT, config)
        history = observed.history
        new_state = PolicyState(
            step=clock.step,
            first_moment=coordinates.first_moment,
            second_moment=coordinates.second_moment,
            history=history._replace(
                leaves=history.leaves.add_log_rates(log_rates @ leaves.shares)
            ),
            carry=carry,
            observations=observations,
            means=means,
        )
        return unravel(-rates * observed.normalized.momentum), new_state

    return optax.GradientTransformationExtraArgs(init, update)


def all_features(observed: observation.Observation, leaves: FlatLeaves) -> chex.Array:
    """The observation of every parameter, `float32[N, F]`."""
    statistics = jax.tree.map(leaves.expand, observed.statistics)
    own = observation.coordinate_features(
        observed.coordinates.param, observed.normalized, statistics
    )
    of_leaves = leaves.membership @ observed.leaf_features
    return jnp.concatenate([jnp.stack(own, axis=-1), of_leaves], axis=-1)
