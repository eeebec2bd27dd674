"""Guided policy search for the coordinatewise optimizer of 2017, on one function.

Each group of coordinates has its own controller, which acts on smoothed values up to 130 steps
back; the one recurrent policy acts on the last three points. In every iteration controllers are
sampled, dynamics and cost are fitted to the samples, for single coordinates and shared within a
group, each controller is improved within its trust region and towards the policy, and the policy is
trained to imitate the controllers. The multipliers of Bregman ADMM keep the mean actions of both
together.

The paper leaves two points open. The cost of a coordinate is here a quadratic of the objective's
gradient, with one nonnegative weight per group, fitted to the objective. Neither controllers nor
policy use that gradient as an input: with the gradients of batches smoothed over iterates, a
controller would learn to cancel the known noise of the next one. The noise of a group's coordinates
is correlated (see `Config2017.noise_correlation`). After an iteration with controllers that are
worse than the best ones, the search reverts to the best ones, with a smaller bound.

Source: Li & Malik 2017, *Learning to Optimize Neural Nets*, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import os
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from alphaopt_jax._storage import run_folder
from alphaopt_jax.baselines.li_malik import (
    _fits_2017,
    _lqg,
    _policies,
    _regression,
    _rollouts_2017,
    _search,
)
from alphaopt_jax.baselines.li_malik._config import Config2017, NoiseConfig
from alphaopt_jax.baselines.li_malik._fits_2017 import GroupSamples
from alphaopt_jax.baselines.li_malik._linear_gaussian import Controller, expectations
from alphaopt_jax.baselines.li_malik._rollouts_2017 import Problem, Samples
from alphaopt_jax.baselines.li_malik._search import PolicyState
from alphaopt_jax.tasks.task import Family, Task

_DEFAULT_CONFIG = Config2017()
# Controllers are worse than the best ones if their cost exceeds theirs by this factor.
_TOLERANCE = 1.05


class SearchState(NamedTuple):
    """State of a search between two iterations.

    Attributes:
      iteration: Iterations so far, `int32[]`.
      controllers: Controllers with a leading axis `[G]` for the groups.
      accepted: The best controllers so far.
      accepted_cost: Their cost, summed over T steps, `float32[]`.
      multipliers: λ, `float32[G, T]`.
      bound: ε, `float32[]`.
      cost: Cost of the controllers before the last iteration, `float32[]`.
      predicted: Decrease of this cost that the last iteration predicted, `float32[]`.
      policy: The policy.
      best_params: Policy parameters with the lowest cost so far.
      best_cost: Their cost, mean over T steps, `float32[]`.
    """

    iteration: chex.Array
    controllers: Controller
    accepted: Controller
    accepted_cost: chex.Array
    multipliers: chex.Array
    bound: chex.Array
    cost: chex.Array
    predicted: chex.Array
    policy: PolicyState
    best_params: chex.ArrayTree
    best_cost: chex.Array


class GroupProblem(NamedTuple):
    """What a group's new controller depends on, besides samples and bound.

    Attributes:
      controller: The old controller.
      cost_weight: Weight of squared gradients in the cost, `float32[]`.
      kl_weight: ν, `float32[]`.
      multipliers: λ, `float32[T]`.
    """

    controller: Controller
    cost_weight: chex.Array
    kl_weight: chex.Array
    multipliers: chex.Array


class Result2017(NamedTuple):
    """Result of `train_2017`.

    Attributes:
      policy: The policy with the lowest cost.
      cost: Its mean objective over T steps.
      momentum_cost: The same cost of gradient descent with momentum, tuned.
      history: One entry per iteration: "round", "controller_cost" and "policy_cost" (as `cost`;
        controllers with their noise), "policy_divergence" (of controllers from the policy, in nats
        per step and coordinate) and "bound" (ε).
    """

    policy: _policies.Policy2017
    cost: float
    momentum_cost: float
    history: list[dict[str, Any]]


def train_2017(
    task: Task | Family,
    config: Config2017 = _DEFAULT_CONFIG,
    *,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    show_progress: bool = True,
) -> Result2017:
    """Learns a coordinatewise optimizer on one function, from several starts.

    Args:
      task: The task to train on; for a family, a task drawn with the seed.
      config: Hyperparameters.
      seed: Random seed of the whole search.
      folder: Folder for checkpoints; an interrupted search continues from the latest one.
      show_progress: True to show progress.

    Returns:
      The policy, and the history.

    Raises:
      ValueError: `folder` holds another run.
    """
    identity = {"task": task.name, "config": repr(config), "seed": seed}
    store = run_folder.Store(folder, identity)
    task_key, problem_key, init_key, stream = jax.random.split(jax.random.key(seed), 4)
    if isinstance(task, Family):
        task = task.draw(task_key)
    guided_search = GuidedSearch(_rollouts_2017.make_problem(task, config, problem_key))
    first, cost = jax.jit(guided_search.init)(init_key)
    search = store.resume(lambda: first, lambda search: int(search.iteration))
    iterate = jax.jit(guided_search.iterate, donate_argnums=0)
    momentum_cost = float(cost)

    def describe(entry: Mapping[str, float]) -> str:
        return (
            f"cost {entry['policy_cost']:.4f} (controllers {entry['controller_cost']:.4f},"
            f" momentum {momentum_cost:.4f})"
        )

    search = _search.run(
        store,
        search,
        lambda number, search: iterate(search, jax.random.fold_in(stream, number)),
        config.iterations,
        describe=describe,
        show=show_progress,
    )
    return Result2017(
        _policies.Policy2017(jax.device_get(search.best_params)),
        float(search.best_cost),
        momentum_cost,
        store.history,
    )


class GuidedSearch:
    """Guided policy search on one problem; all methods are functions to compile."""

    def __init__(self, problem: Problem):
        """Stores the problem."""
        self._problem = problem

    def init(self, key: chex.PRNGKey) -> tuple[SearchState, chex.Array]:
        """Starts a search from the best momentum.

        Args:
          key: Consumed.

        Returns:
          The state of a new search, with the best momentum and noise as controllers and a policy
          that imitates them; and the mean objective of that momentum.
        """
        problem, config = self._problem, self._problem.config
        tune_key, select_key, sample_key, init_key, fit_key = jax.random.split(key, 5)
        quiet, cost = _best_momentum(problem, tune_key)
        selected = _rollouts_2017.sample_coordinates(problem, select_key, config.coordinates)
        keys = jax.random.split(sample_key, config.trajectories)
        sizes = jnp.mean(self._sample(quiet, selected, keys).squared_actions, axis=0)
        controllers = quiet._replace(covariance=_noise_covariance(sizes, config.noise))
        samples = self._sample(controllers, selected, keys)
        scales = _search.policy_scales(samples.observations, samples.actions)
        multipliers = jnp.zeros((problem.num_groups, config.horizon))
        policy = _fits_2017.fit_policy(
            _search.init_policy(_policies.init_2017(init_key, config.width, scales)),
            _fits_2017.Demonstrations(samples, controllers, multipliers),
            jnp.float32(config.policy_fit.learning_rate),
            fit_key,
            config,
        )
        sampled_cost = jnp.mean(samples.cost)
        search = SearchState(
            iteration=jnp.zeros((), jnp.int32),
            controllers=controllers,
            accepted=jax.tree.map(jnp.array, controllers),
            accepted_cost=sampled_cost,
            multipliers=multipliers,
            bound=jnp.asarray(config.trust_region.max_divergence, jnp.float32),
            cost=jnp.array(sampled_cost),
            predicted=jnp.zeros((), jnp.float32),
            policy=policy,
            best_params=jax.tree.map(jnp.array, policy.params),
            best_cost=jnp.full((), jnp.inf, jnp.float32),
        )
        return search, cost / config.horizon

    def iterate(
        self, search: SearchState, key: chex.PRNGKey
    ) -> tuple[SearchState, dict[str, chex.Array]]:
        """Runs one iteration.

        Args:
          search: The state.
          key: Consumed.

        Returns:
          The next state, and metrics for the history.
        """
        problem, config = self._problem, self._problem.config
        select_key, sample_key, fit_key = jax.random.split(key, 3)
        selected = _rollouts_2017.sample_coordinates(problem, select_key, config.coordinates)
        keys = jax.random.split(sample_key, config.trajectories)
        samples = self._sample(search.controllers, selected, keys)
        cost = jnp.mean(samples.cost)
        better = cost < search.accepted_cost
        search = search._replace(
            iteration=search.iteration + 1,
            accepted=_search.select(better, search.controllers, search.accepted),
            accepted_cost=jnp.where(better, cost, search.accepted_cost),
            bound=_lqg.adapt_bound(
                search.bound, search.predicted, search.cost - cost, config.trust_region
            ),
        )
        accept = cost <= _TOLERANCE * search.accepted_cost
        search, divergence = jax.lax.cond(
            accept, self._update, self._revert, search, samples, cost, fit_key
        )
        # Always the same batches, so that the costs of policies are comparable.
        objectives = _rollouts_2017.rollout_policy(
            problem, search.policy.params, problem.starts[0], jax.random.key(0)
        )
        policy_cost = jnp.mean(objectives[1:])
        best = policy_cost < search.best_cost
        search = search._replace(
            best_params=_search.select(best, search.policy.params, search.best_params),
            best_cost=jnp.where(best, policy_cost, search.best_cost),
        )
        return search, {
            "controller_cost": cost / config.horizon,
            "policy_cost": policy_cost,
            "policy_divergence": divergence,
            "bound": search.bound,
        }

    def _update(
        self, search: SearchState, samples: Samples, cost: chex.Array, key: chex.PRNGKey
    ) -> tuple[SearchState, chex.Array]:
        """Improves the controllers, trains the policy and updates the multipliers.

        Returns:
          The next state, and the mean divergence of controllers from the policy.
        """
        config, group_sizes = self._problem.config, self._problem.group_sizes
        weights = _fits_2017.fit_cost(samples)
        mean_squares = jnp.mean(samples.squared_gradients, axis=(0, 1))
        mean_cost = 0.5 * weights * mean_squares / group_sizes
        kl_weight = config.kl_weight * search.iteration * jnp.maximum(mean_cost, 1e-12)
        policy_actions = _fits_2017.policy_actions(search.policy.params, samples)
        improve = functools.partial(_improve, bound=search.bound, config=config)
        improved, predicted, divergences = jax.vmap(improve, in_axes=(2, 0))(
            GroupSamples(samples.states, samples.gradients, samples.actions, policy_actions),
            GroupProblem(search.controllers, weights, kl_weight, search.multipliers),
        )
        # The noise of the solution itself would shrink from iteration to iteration.
        sizes = jnp.mean(samples.squared_actions, axis=0)
        improved = improved._replace(covariance=_noise_covariance(sizes, config.noise))
        finite = _search.is_finite(improved)
        controllers = _search.select(finite, improved, search.controllers)
        policy = _fits_2017.fit_policy(
            search.policy,
            _fits_2017.Demonstrations(
                samples, controllers, search.multipliers / kl_weight[:, None]
            ),
            _search.decayed(config.policy_fit.learning_rate, search.iteration, config.iterations),
            key,
            config,
        )
        difference = jnp.mean(
            _fits_2017.policy_actions(policy.params, samples)
            - _fits_2017.controller_actions(controllers, samples),
            axis=(0, 3),
        )
        search = search._replace(
            controllers=controllers,
            multipliers=search.multipliers + config.dual_rate * kl_weight[:, None] * difference.T,
            cost=cost,
            predicted=jnp.where(finite, jnp.sum(group_sizes * predicted), 0.0),
            policy=policy,
        )
        return search, jnp.mean(divergences)

    def _revert(
        self, search: SearchState, samples: Samples, cost: chex.Array, key: chex.PRNGKey
    ) -> tuple[SearchState, chex.Array]:
        """Returns to the best controllers; the signature is that of `_update`."""
        del samples, cost, key
        search = search._replace(
            controllers=search.accepted,
            cost=search.accepted_cost,
            predicted=jnp.zeros_like(search.predicted),
        )
        return search, jnp.zeros(())

    def _sample(self, controllers: Controller, selected: chex.Array, keys: chex.PRNGKey) -> Samples:
        """Trajectories with a leading axis `[S]`."""
        return jax.vmap(
            lambda start, key: _rollouts_2017.rollout_controllers(
                self._problem, controllers, start, selected, key
            )
        )(self._problem.starts, keys)


def _improve(
    samples: GroupSamples, problem: GroupProblem, *, bound: chex.Array, config: Config2017
) -> tuple[Controller, chex.Array, chex.Array]:
    """Improves the controller of one group.

    Here the state is Φ with the objective's gradient as a last entry, which only the cost uses.

    Args:
      samples: Samples of the group.
      problem: The group's old controller and the weights of its cost.
      bound: ε, `float32[]`.
      config: Hyperparameters.

    Returns:
      The new controller; the predicted decrease of the cost, and the divergence from the policy per
      step, both of one coordinate.
    """
    horizon, size = config.horizon, samples.states.shape[-1]
    model = _fits_2017.fit_model(samples, problem.cost_weight, config)
    policy = _regression.fit(
        _fits_2017.pool(samples.states[:, :-1], samples.policy_actions[..., None]),
        size,
        dataclasses.replace(config.prior, num_clusters=1, num_rounds=1),
    )
    penalty = _lqg.PolicyPenalty(
        _fits_2017.pad_gain(policy.coefficients),
        policy.constant,
        jnp.full(horizon, problem.kl_weight),
        problem.multipliers[:, None],
    )
    old = problem.controller._replace(gain=_fits_2017.pad_gain(problem.controller.gain))
    improved = _lqg.improve(model, old, penalty, bound)
    before = expectations(model, old, old)
    policy_controller = Controller(penalty.gain, penalty.offset, old.covariance)
    after = expectations(model, improved.controller, policy_controller)
    return (
        improved.controller._replace(gain=improved.controller.gain[..., :size]),
        jnp.sum(before.cost) - improved.cost,
        jnp.mean(after.divergence),
    )


def _best_momentum(problem: Problem, key: chex.PRNGKey) -> tuple[Controller, chex.Array]:
    """The momentum with the lowest cost on one trajectory, and that cost."""
    rates, decays = _search.momentum_pairs(problem.config.momentum)
    none = jnp.zeros((problem.num_groups, 0), jnp.int32)

    def evaluate(pair: tuple[chex.Array, chex.Array]) -> chex.Array:
        controllers = _rollouts_2017.momentum_controllers(problem, *pair)
        cost = _rollouts_2017.rollout_controllers(
            problem, controllers, problem.starts[0], none, key
        ).cost
        return jnp.where(jnp.isfinite(cost), cost, jnp.inf)

    costs = jax.lax.map(evaluate, (rates, decays))
    best = jnp.argmin(costs)
    controllers = _rollouts_2017.momentum_controllers(problem, rates[best], decays[best])
    return controllers, costs[best]


def _noise_covariance(squared_actions: chex.Array, noise: NoiseConfig) -> chex.Array:
    """From mean squared actions `float32[T, G]` to variances `float32[G, T, 1, 1]`."""
    largest = jnp.max(squared_actions, axis=0, keepdims=True)
    variances = jnp.maximum(noise.scale**2 * squared_actions, noise.min_scale**2 * largest)
    return jnp.maximum(variances, 1e-20).T[:, :, None, None]
