"""Records of an episode: states of a task during optimization, its intervals and their outcomes."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int, UInt32

from alphaopt_jax._agent.history import History
from alphaopt_jax._agent.leaves import FlatLeaves
from alphaopt_jax._agent.rotation import Bases, Rotation


class LossAndGrads(NamedTuple):
    """Loss and gradients on one batch.

    Attributes:
      loss: `float32[]`.
      grads: `float32[N]`.
    """

    loss: Float[Array, ""]
    grads: Float[Array, " parameters"]


class EnvState(NamedTuple):
    """State of one task during its optimization.

    Attributes:
      instance: The data that distinguishes the task from others of its family.
      key_data: `uint32[2]`, the random key of its batches.
      params: `float32[N]`, its parameters, one leaf after the other.
      average: `float32[N]`, weighted average of the parameters, as in `_optimizer.averages`.
      bases: Bases of the rotated coordinates.
      gradient_average: `float32[N]`, first moments of the gradients, in these coordinates.
      squared_gradient_average: `float32[N]`, second moments.
      log_multipliers: `float32[N]`, logarithms of the rate multipliers at their last refresh.
      history: Moving averages of the leaves' statistics and of the loss.
      step: `float32[]`, steps made.
      num_steps: `float32[]`, steps planned, or 0 if hidden from the agent.
      multiplier: `float32[]`, factor of all rates, which the agent does not observe.
      first_loss: `float32[]`, the loss at the start.
      measured: Loss and gradients at the parameters. They reward the step that led here, on a batch
        that is independent of that step, and then make the next one.
      rewarded_loss: `float32[]`, the loss of the reward, which is its decrease: that of `measured`,
        unless the task has a reward loss of its own.
    """

    instance: Any
    key_data: UInt32[Array, "2"]
    params: Float[Array, " parameters"]
    average: Float[Array, " parameters"]
    bases: Bases
    gradient_average: Float[Array, " parameters"]
    squared_gradient_average: Float[Array, " parameters"]
    log_multipliers: Float[Array, " parameters"]
    history: History
    step: Float[Array, ""]
    num_steps: Float[Array, ""]
    multiplier: Float[Array, ""]
    first_loss: Float[Array, ""]
    measured: LossAndGrads
    rewarded_loss: Float[Array, ""]


class Noise(NamedTuple):
    """Exploration noise of one interval.

    Attributes:
      leaves: `float32[leaves]`, added to the log rates of all parameters of a leaf.
      explorers: `float32[M]`, added to the log rates of the explorers.
    """

    leaves: Float[Array, " leaves"]
    explorers: Float[Array, " explorers"]


class Outcome(NamedTuple):
    """Observations and rewards of one interval.

    Attributes:
      observations: `float32[M, NUM_FEATURES]`, the explorers', at one step of the interval.
      leaf_observations: `float32[leaves, C]`, the leaf critic's, at the first step.
      leaf_rewards: `float32[leaves]`, each leaf's part of the decrease of the log loss.
      explorer_rewards: `float32[M]`, each explorer's part.
      loss: `float32[]`, at the end.
    """

    observations: Float[Array, "explorers features"]
    leaf_observations: Float[Array, "leaves observed"]
    leaf_rewards: Float[Array, " leaves"]
    explorer_rewards: Float[Array, " explorers"]
    loss: Float[Array, ""]


class Model(NamedTuple):
    """The layout of a family's parameters and the number of explorers; everything is static.

    Attributes:
      leaves: The flat layout.
      rotation: The blocks of rotated coordinates; none in the parameters' own.
      explorers: Number of explorers of each leaf.
    """

    leaves: FlatLeaves
    rotation: Rotation
    explorers: tuple[int, ...]


class Interval(NamedTuple):
    """One interval of an episode.

    Attributes:
      positions: `int32[M]`, indices of the explorers in the flat parameters.
      noise: The exploration noise.
      length: `int32[]`, number of steps.
      observed: `int32[]`, the step with recorded observations, from 0.
      first_step: `int32[]`, steps made before. It is the same for a whole population, unlike
        `EnvState.step`, so that one refresh condition holds for all members.
      horizon: `float32[]`, the true length of the episode.
    """

    positions: Int[Array, " explorers"]
    noise: Noise
    length: Int[Array, ""]
    observed: Int[Array, ""]
    first_step: Int[Array, ""]
    horizon: Float[Array, ""]
