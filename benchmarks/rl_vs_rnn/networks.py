"""The networks of `benchmarks.rl_vs_rnn`: as optimizers two differ in nothing but the network.

Both see AlphaOpt's observation of every parameter and choose the logarithm of its learning rate.
One is AlphaOpt's own actor, which has no memory of its own beside what is observed; the other is
the coordinatewise LSTM of Andrychowicz et al., which has. A third is that LSTM as it was published:
it sees the gradient alone and puts out the step itself.
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
from alphaopt_jax._agent import history as history_lib
from alphaopt_jax._agent import network as network_lib
from alphaopt_jax._learning import explorers
from alphaopt_jax.baselines.l2l import LSTMConfig, _network
from alphaopt_jax.config import AlphaOptConfig, adaptive_config

MAX_LOG_RATE = 4.0
_LEAF_HIDDEN, _ACTOR_HIDDEN = 32, 8
_CONFIG = adaptive_config()


class LearnedOptimizer(Protocol):
    """Whatever can be trained to be an optimizer."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def init(self) -> Callable[[chex.PRNGKey], chex.ArrayTree]:
        """From a key (consumed) to fresh parameters."""

    def optimizer(
        self, params: chex.ArrayTree, *, num_steps: int
    ) -> optax.GradientTransformationExtraArgs:
        """The optimizer with these parameters, for a planned number of updates."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A coordinatewise policy, with or without memory. N parameters, F features.

    Attributes:
      name: What tables call it.
      init: From a key (consumed) to fresh parameters; a fresh network chooses the default rates.
      zero_carry: From N to its memory before the first step, leaves of `[N, ...]`.
      apply: From parameters, a carry and observations `float32[N, F]` to the next carry and mean
        log rates, `float32[N]`. Every row is computed alike and alone.
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
      name: What tables call it.
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
        """The LSTM with these parameters; it does not ask how many steps are planned."""
        del num_steps
        return optax.with_extra_args_support(self.config.transformation(params))


class Layout(NamedTuple):
    """How leaves lie in one flat vector; everything is static.

    Attributes:
      sizes: Parameters of each leaf.
      is_matrix: Whether each has two or more axes, `float32[leaves]`.
      fan_in: Inputs of a unit of each, `float32[leaves]`.
      membership: `float32[N, leaves]`, 1 where a parameter belongs to a leaf.
    """

    sizes: tuple[int, ...]
    is_matrix: np.ndarray
    fan_in: np.ndarray
    membership: np.ndarray


class PolicyState(NamedTuple):
    """State of the optimizer that a network is.

    Attributes:
      step: `float32[]`, updates made.
      first_moment: `float32[N]`.
      second_moment: `float32[N]`.
      leaf_memory: What every leaf remembers.
      loss_history: Moving averages of the loss.
      carry: The network's own memory.
      observations: `float32[N, F]`, what it saw at the last step.
      means: `float32[N]`, the log rates that it chose then, without noise.
    """

    step: chex.Array
    first_moment: chex.Array
    second_moment: chex.Array
    leaf_memory: history_lib.LeafMemory
    loss_history: history_lib.LossHistory
    carry: Any
    observations: chex.Array
    means: chex.Array


def feedforward() -> Network:
    """AlphaOpt's actor."""
    actor = network_lib.Actor(_ACTOR_HIDDEN, _LEAF_HIDDEN, MAX_LOG_RATE)
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


def layout(params: chex.ArrayTree) -> Layout:
    """The layout of parameters, or of their shapes."""
    leaves = jax.tree.leaves(params)
    sizes = tuple(leaf.size for leaf in leaves)
    return Layout(
        sizes,
        np.array([leaf.ndim > 1 for leaf in leaves], np.float32),
        np.array([observation.fan_in(leaf.shape) for leaf in leaves], np.float32),
        np.eye(len(sizes), dtype=np.float32)[explorers.leaf_of(sizes)],
    )


def as_optimizer(
    network: Network,
    params: chex.ArrayTree,
    num_steps: int,
    config: AlphaOptConfig = _CONFIG,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer that a network is.

    Args:
      network: The network.
      params: Its parameters, which may be traced.
      num_steps: Planned number of updates.
      config: Constants of observation and step.

    Returns:
      An optax transformation, which takes the loss as `value` and, by `noise`, `float32[N]` to add
      to the log rates.
    """

    def init(optimized: optax.Params) -> PolicyState:
        model = layout(optimized)
        size = sum(model.sizes)
        return PolicyState(
            step=jnp.zeros(()),
            first_moment=jnp.zeros((size,)),
            second_moment=jnp.zeros((size,)),
            leaf_memory=history_lib.empty_leaf_memory(len(model.sizes)),
            loss_history=history_lib.empty_loss_history(),
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
        model = layout(updates)
        shares = model.membership / np.array(model.sizes, np.float32)
        grads, unravel = flatten_util.ravel_pytree(updates)
        flat, _ = flatten_util.ravel_pytree(optimized)
        number = state.step + 1.0

        # Observe.
        coordinates = observation.accumulate(
            flat, grads, state.first_moment, state.second_moment, config
        )
        normalized = observation.normalize(coordinates, number, config)
        averaged = jnp.stack(observation.averaged_for_statistics(flat, normalized))
        statistics = observation.statistics_of_means(averaged @ shares, number, config)
        of_leaf = jax.tree.map(lambda each: each @ model.membership.T, statistics)
        history = history_lib.append_loss(state.loss_history, jnp.asarray(value, jnp.float32))
        leaf_memory = history_lib.remember(
            state.leaf_memory,
            statistics.persistence,
            statistics.consistency,
            statistics.second_moment,
            statistics.scale,
            number,
        )
        of_leaves = jnp.concatenate(
            [
                observation.context_features(
                    statistics, model.is_matrix, history, number, num_steps
                ),
                observation.memory_features(
                    leaf_memory, statistics, model.fan_in, history, num_steps, config
                ),
            ],
            axis=-1,
        )
        own = jnp.stack(observation.coordinate_features(flat, normalized, of_leaf), axis=-1)
        observations = jnp.concatenate([own, model.membership @ of_leaves], axis=-1)

        # Act.
        carry, means = network.apply(params, state.carry, observations)
        log_rates = means + noise
        schedule = observation.schedule(number, num_steps, np.inf)
        rates = action.learning_rates(log_rates, of_leaf.scale, 1.0, schedule, config)
        new_state = PolicyState(
            step=number,
            first_moment=coordinates.first_moment,
            second_moment=coordinates.second_moment,
            leaf_memory=history_lib.remember_rates(leaf_memory, log_rates @ shares),
            loss_history=history,
            carry=carry,
            observations=observations,
            means=means,
        )
        return unravel(-rates * normalized.momentum), new_state

    return optax.GradientTransformationExtraArgs(init, update)
