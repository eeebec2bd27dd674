"""Hyperparameters of guided policy search for the optimizers of 2016 and 2017."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class MomentumGrid:
    """Candidates for the first controllers, which are gradient descent with momentum.

    Attributes:
      learning_rates: Candidate learning rates.
      decays: Candidate decay rates of the momentum.
    """

    learning_rates: tuple[float, ...]
    decays: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class NoiseConfig:
    """Exploration noise of the controllers.

    Attributes:
      scale: Standard deviation, relative to the root mean square of the actions at the same step.
      min_scale: Lower bound, relative to the largest such root mean square of the trajectory.
    """

    scale: float = 0.3
    min_scale: float = 0.03


@dataclasses.dataclass(frozen=True)
class PriorConfig:
    """Prior of the regressions that fit dynamics and cost, a mixture of Gaussians.

    Attributes:
      num_clusters: Gaussians in the mixture.
      num_rounds: Rounds of expectation maximization.
      num_samples: Weight of the prior, as a number of samples.
    """

    num_clusters: int
    num_rounds: int
    num_samples: float


@dataclasses.dataclass(frozen=True)
class TrustRegion:
    """Bound ε on the divergence of a new controller from the old one.

    Attributes:
      max_divergence: Upper limit of ε, in nats, summed over T steps.
      min_fraction: Lower limit of ε, relative to `max_divergence`. ε is reduced if the fitted model
        predicts a larger decrease of the cost than is observed.
    """

    max_divergence: float
    min_fraction: float = 0.01


@dataclasses.dataclass(frozen=True)
class PolicyFit:
    """Supervised training of the policy, in each iteration of guided policy search.

    Attributes:
      num_updates: Adam steps.
      batch_size: Samples per step.
      learning_rate: Learning rate of Adam; it decays linearly to a tenth over the iterations.
    """

    num_updates: int
    batch_size: int
    learning_rate: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Config2016:
    """Hyperparameters of *Learning to Optimize*. [P] marks values from the paper.

    Attributes:
      history: H, the number of past points in the features [P].
      current_gradient: True if the H gradients of the features include that at the current point.
        The paper's index can be read both ways.
      hidden: Softplus units in the policy's hidden layer [P].
      horizon: T, steps of a trajectory [P].
      trajectories: Trajectories per controller and iteration [P, per function].
      num_functions: Training functions.
      starts: Starting points per training function, each with its own controller and trajectories.
        A policy trained from a single start per function does not generalize.
      iterations: Iterations of guided policy search.
      validation_functions: Functions on which the best policy of all iterations is selected.
      momentum: Grid for the first controllers; the best pair is found for each function [P].
      noise: Exploration noise of the controllers.
      prior: Prior of the fitted dynamics and cost; the number of clusters is from the paper [P].
      trust_region: Bound on the change of a function's controller.
      kl_weight: Increase per iteration of ν, the weight of the divergence from the policy, per nat.
        Its unit is the mean decrease of the objective under the first controller. This is dual
        ascent on the constraint that controller and policy agree.
      policy_fit: Training of the policy.
    """

    history: int = 25
    current_gradient: bool = True
    hidden: int = 50
    horizon: int = 40
    trajectories: int = 20
    num_functions: int = 90
    starts: int = 4
    iterations: int = 6
    validation_functions: int = 100
    momentum: MomentumGrid = MomentumGrid(
        learning_rates=(1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
        decays=(0.0, 0.5, 0.7, 0.8, 0.9, 0.95),
    )
    noise: NoiseConfig = NoiseConfig()
    prior: PriorConfig = PriorConfig(num_clusters=10, num_rounds=8, num_samples=10.0)
    trust_region: TrustRegion = TrustRegion(max_divergence=200.0)
    kl_weight: float = 0.001
    policy_fit: PolicyFit = PolicyFit(num_updates=2000, batch_size=256)


@dataclasses.dataclass(frozen=True)
class Config2017:
    """Hyperparameters of *Learning to Optimize Neural Nets*. [P] marks values from the paper.

    Attributes:
      width: Hidden units of the policy's LSTM [P].
      horizon: T, steps of a trajectory [P].
      trajectories: Trajectories per iteration, each from its own start.
      coordinates: Coordinates sampled from each group in each iteration, with replacement, to which
        dynamics, cost and policy are fitted.
      iterations: Iterations of guided policy search.
      objective_batches: Fixed batches whose mean loss is the objective. The paper uses the loss on
        all data.
      momentum: Grid for the first controllers; decays are per five steps, the distance between the
        gradients of the state.
      noise: Exploration noise of the controllers.
      noise_correlation: Correlation of the noise with the mean action over the coordinates of a
        group. Independent noise only shows the effect of single coordinates, but too large steps
        are an effect of all coordinates together.
      prior: Prior of the fitted dynamics and policy.
      trust_region: Bound on the change of a group's controller, per coordinate.
      kl_weight: Increase per iteration of ν, the weight of the divergence from the policy, per nat.
        Its unit is the mean fitted cost of a coordinate.
      dual_rate: α, the step size of the ascent on λ, the multiplier of the difference between the
        mean actions of controller and policy.
      policy_fit: Training of the policy; a sample is the trajectory of one coordinate.
    """

    width: int = 128
    horizon: int = 400
    trajectories: int = 8
    coordinates: int = 32
    iterations: int = 30
    objective_batches: int = 8
    momentum: MomentumGrid = MomentumGrid(
        learning_rates=(1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0), decays=(0.0, 0.5, 0.7, 0.9)
    )
    noise: NoiseConfig = NoiseConfig()
    noise_correlation: float = 0.9
    prior: PriorConfig = PriorConfig(num_clusters=10, num_rounds=4, num_samples=50.0)
    trust_region: TrustRegion = TrustRegion(max_divergence=20.0)
    kl_weight: float = 0.01
    dual_rate: float = 0.1
    policy_fit: PolicyFit = PolicyFit(num_updates=60, batch_size=64)
