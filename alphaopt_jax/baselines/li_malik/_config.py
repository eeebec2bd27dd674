"""The constants of guided policy search, one frozen object for each of the two papers."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Config2016:
    """Constants of *Learning to Optimize*. [P] marks what the paper says; the rest is ours.

    Attributes:
      history: H, points that features reach back to [P].
      current_gradient: Whether the gradient at the current point is one of the H that the policy
        sees, or only those before it. The paper's index can be read both ways.
      hidden: Softplus units in the policy's one hidden layer [P].
      horizon: T, steps of a trajectory [P].
      trajectories: Drawn per controller and iteration [P, for a function].
      starts: Of each training function, each with a controller and trajectories of its own. A
        policy that knows every function from one start only repeats on others what was right
        there.
      iterations: Of guided policy search.
      validation_functions: Functions that the best policy of all iterations is chosen by; no others
        tell whether it holds where no controller has been.
      rates: Of the gradient descent with momentum that controllers start as; the best pair of rate
        and decay is found for each training function [P], these are what is tried.
      decays: Of its momentum.
      exploration: Deviation of a controller's noise, in typical sizes of its actions at that step.
      least_exploration: Least deviation, in typical sizes of the trajectory's largest actions.
      clusters: Gaussians in the mixture that is the prior of the dynamics [P].
      cluster_rounds: Rounds of expectation maximisation that fit it.
      prior_samples: How many samples the prior counts for, beside the trajectories.
      bound: ε, greatest divergence of a function's new controller from its old one, in nats,
        summed over T steps.
      least_bound: Where the fitted model promised more than came about, a function's bound is
        lowered, to this share of `bound` at least.
      pull: Weight ν of the divergence from the policy, per nat, in units of what the first
        controller gains in a typical step. It grows by as much in every iteration: the dual
        ascent on the constraint that controller and policy agree.
      policy_updates: Steps of Adam on the policy in each iteration.
      policy_batch: States in each of them.
      learning_rate: Adam's; it falls to a tenth over the iterations.
    """

    history: int = 25
    current_gradient: bool = True
    hidden: int = 50
    horizon: int = 40
    trajectories: int = 20
    starts: int = 4
    iterations: int = 6
    validation_functions: int = 100
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    decays: tuple[float, ...] = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)
    exploration: float = 0.3
    least_exploration: float = 0.03
    clusters: int = 10
    cluster_rounds: int = 8
    prior_samples: float = 10.0
    bound: float = 200.0
    least_bound: float = 0.01
    pull: float = 0.001
    policy_updates: int = 2000
    policy_batch: int = 256
    learning_rate: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Config2017:
    """Constants of *Learning to Optimize Neural Nets*. [P] marks what the paper says.

    Attributes:
      width: Cells of the policy's LSTM [P].
      horizon: T, steps of a trajectory [P].
      trajectories: Drawn in each iteration, each from a start of its own.
      coordinates: Drawn in each iteration from each group, with replacement: what is fitted is
        fitted to theirs.
      iterations: Of guided policy search.
      objective_batches: Batches, always the same, whose mean loss stands for the objective that is
        the cost [P: the objective itself, not a minibatch's].
      rates: Of the gradient descent with momentum that controllers start as; the best pair of rate
        and decay is used.
      decays: Of its momentum, in five steps: the state's gradients lie so far apart.
      exploration: Deviation of a controller's noise, in typical sizes of its actions at that step.
      least_exploration: Least deviation, in typical sizes of the trajectory's largest actions.
      shared_noise: Correlation of the noise with the mean action over the coordinates of a group.
        In dynamics that know a coordinate only by itself, independent noise shows what a
        coordinate does alone; what all of them do together is what makes steps too long.
      clusters: Gaussians in the mixture that is the prior of the dynamics.
      cluster_rounds: Rounds of expectation maximisation that fit it.
      prior_samples: How many samples the prior counts for, beside trajectories times coordinates.
      bound: ε, greatest divergence of a group's new controller from its old one, in nats, of one
        coordinate and summed over T steps.
      least_bound: Where the fitted model promised more than came about, the bound is lowered, to
        this share of `bound` at least.
      pull: Weight ν of the divergence from the policy, per nat, in units of a coordinate's mean
        fitted cost. It grows by as much in every iteration.
      dual_rate: α of the ascent on λ, the multiplier of the mean actions' difference.
      policy_updates: Steps of Adam on the policy in each iteration.
      policy_batch: Coordinates' trajectories in each of them.
      learning_rate: Adam's; it falls to a tenth over the iterations.
    """

    width: int = 128
    horizon: int = 400
    trajectories: int = 8
    coordinates: int = 32
    iterations: int = 30
    objective_batches: int = 8
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
    decays: tuple[float, ...] = (0.0, 0.5, 0.7, 0.9)
    exploration: float = 0.3
    least_exploration: float = 0.03
    shared_noise: float = 0.9
    clusters: int = 10
    cluster_rounds: int = 4
    prior_samples: float = 50.0
    bound: float = 20.0
    least_bound: float = 0.01
    pull: float = 0.01
    dual_rate: float = 0.1
    policy_updates: int = 60
    policy_batch: int = 64
    learning_rate: float = 1e-3
