"""Guided policy search for the full-vector optimizer of 2016.

Each start of a training function has its own controller, whose state includes the location; the one
policy only uses the history. In every iteration controllers are sampled, dynamics and cost are
fitted to the samples, each controller is improved within its trust region and towards the policy,
and the policy is trained to imitate the controllers. After each improvement the noise of a
controller is set anew, in proportion to its actions; the trust region applies to the solution
before that. Controllers whose trajectories diverge are reverted.

A run is a deterministic function of family, config and seed, and a resumed run ends with the same
parameters, bit for bit.

Source: Li & Malik 2016, *Learning to Optimize*, section 3; Levine & Abbeel 2014, *Learning Neural
Network Policies with Guided Policy Search under Unknown Dynamics*.
"""

from __future__ import annotations

from collections.abc import Mapping
import functools
import os
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from alphaopt_jax._storage import run_folder
from alphaopt_jax.baselines.li_malik import _fits_2016, _lqg, _policies, _rollouts_2016, _search
from alphaopt_jax.baselines.li_malik._config import Config2016
from alphaopt_jax.baselines.li_malik._linear_gaussian import (
    Controller,
    Gaussian,
    Model,
    expectations,
)
from alphaopt_jax.baselines.li_malik._rollouts_2016 import Functions, Objective, Trajectory
from alphaopt_jax.baselines.li_malik._search import PolicyState
from alphaopt_jax.tasks.task import Family

_DEFAULT_CONFIG = Config2016()
# A controller has diverged if its cost rises by more than this, in units of the first controller's
# total decrease of the objective.
_MAX_INCREASE = 0.5


class SearchState(NamedTuple):
    """State of a search between two iterations.

    Attributes:
      iteration: Iterations so far, `int32[]`.
      controllers: Controllers with a leading axis `[M]` for the pairs of function and start.
      kl_weights: ν, weight of the divergence from the policy, `float32[M, T]`.
      unit: Mean decrease of the objective under the first controller, `float32[M]`.
      bounds: ε of each controller, `float32[M]`.
      previous: The controllers before the last iteration.
      costs: Their costs, summed over T steps, `float32[M]`.
      predicted: Decrease of these costs that the last iteration predicted, `float32[M]`.
      policy: The policy.
      best_params: Policy parameters with the lowest cost on the validation functions.
      best_cost: Their cost, `float32[]`.
    """

    iteration: chex.Array
    controllers: Controller
    kl_weights: chex.Array
    unit: chex.Array
    bounds: chex.Array
    previous: Controller
    costs: chex.Array
    predicted: chex.Array
    policy: PolicyState
    best_params: chex.ArrayTree
    best_cost: chex.Array


class Result2016(NamedTuple):
    """Result of `train_2016`.

    Attributes:
      policy: The policy with the lowest cost on the validation functions.
      cost: Its cost there: the mean objective over T steps and all functions.
      momentum_cost: The same cost of gradient descent with momentum, tuned for each function.
      history: One entry per iteration: "round", "controller_cost" and "policy_cost" (as `cost`, on
        the training functions; controllers with their noise), "validation_cost" (as `cost`),
        "policy_divergence" (of controllers from the policy, in nats per step), "bound" (mean ε) and
        "reverted" (fraction of functions whose controllers diverged).
    """

    policy: _policies.Policy2016
    cost: float
    momentum_cost: float
    history: list[dict[str, Any]]


def train_2016(
    family: Family,
    config: Config2016 = _DEFAULT_CONFIG,
    *,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    show_progress: bool = True,
) -> Result2016:
    """Learns an optimizer for the functions of one family.

    A training function is one instance of the family with one batch, since guided policy search
    needs deterministic objectives. It fits families whose batches contain all data.

    Args:
      family: Family of the training functions, all with the same number of parameters.
      config: Hyperparameters.
      seed: Random seed of the whole search.
      folder: Folder for checkpoints; an interrupted search continues from the latest one.
      show_progress: True to show progress.

    Returns:
      The policy, and the history.

    Raises:
      ValueError: `folder` holds another run.

    Example:
      >>> from alphaopt_jax.baselines.li_malik import PolicyFit, PriorConfig
      >>> from alphaopt_jax.tasks.families.quadratics import quadratics
      >>> family = quadratics("bowls", 2, distances=(0.5, 1.0), rotated_share=0.5)
      >>> config = Config2016(
      ...     history=3, horizon=5, trajectories=4, num_functions=3, iterations=1,
      ...     prior=PriorConfig(num_clusters=2, num_rounds=8, num_samples=10.0),
      ...     policy_fit=PolicyFit(num_updates=5, batch_size=256),
      ... )
      >>> result = train_2016(family, config, show_progress=False)
      >>> result.policy.dimension, len(result.history)
      (2, 1)
    """
    identity = {"family": family.name, "config": repr(config), "seed": seed}
    store = run_folder.Store(folder, identity)
    functions_key, validation_key, init_key, stream = jax.random.split(jax.random.key(seed), 4)
    draw = jax.jit(_rollouts_2016.draw_functions, static_argnums=(0, 2, 3))
    functions = draw(family, functions_key, config.num_functions, config.starts)
    validation = draw(family, validation_key, config.validation_functions)
    guided_search = GuidedSearch(family, config)
    tune = jax.jit(guided_search.tune_momentum)
    controllers, momentum_costs = tune(functions)
    momentum_cost = float(jnp.mean(tune(validation)[1])) / config.horizon
    search = store.resume(
        lambda: jax.jit(guided_search.init)(controllers, momentum_costs, functions, init_key),
        lambda search: int(search.iteration),
    )
    iterate = jax.jit(guided_search.iterate, donate_argnums=0)

    def describe(entry: Mapping[str, float]) -> str:
        return (
            f"cost {entry['validation_cost']:.4f} (momentum {momentum_cost:.4f};"
            f" in training {entry['policy_cost']:.4f},"
            f" controllers {entry['controller_cost']:.4f})"
        )

    search = _search.run(
        store,
        search,
        lambda number, search: iterate(
            search, functions, validation, jax.random.fold_in(stream, number)
        ),
        config.iterations,
        describe=describe,
        show=show_progress,
    )
    return Result2016(
        _policies.Policy2016(jax.device_get(search.best_params), config.current_gradient),
        float(search.best_cost),
        momentum_cost,
        store.history,
    )


class GuidedSearch:
    """Guided policy search over one family; all methods are functions to compile."""

    def __init__(self, family: Family, config: Config2016):
        """Stores the arguments.

        Args:
          family: Family of the functions.
          config: Hyperparameters.
        """
        self._family = family
        self._config = config

    def tune_momentum(self, functions: Functions) -> tuple[Controller, chex.Array]:
        """Returns the best momentum for each function as a controller, and costs `float32[M]`."""
        tune = functools.partial(_rollouts_2016.best_momentum, config=self._config)
        controllers, costs = _rollouts_2016.map_functions(self._family, tune)(functions)
        return controllers, costs

    def init(
        self,
        controllers: Controller,
        costs: chex.Array,
        functions: Functions,
        key: chex.PRNGKey,
    ) -> SearchState:
        """Returns the state of a new search, with a policy that imitates the controllers.

        Args:
          controllers: The first controllers, with a leading axis `[M]`.
          costs: Their costs without noise, `float32[M]`.
          functions: The training functions.
          key: Consumed.
        """
        config = self._config
        count, dimension = functions.starts.shape
        sample_key, init_key, fit_key = jax.random.split(key, 3)
        samples = self._sample(functions, controllers, sample_key)
        first = samples.objectives[:, 0, 0]
        unit = jnp.maximum(first - costs / config.horizon, 1e-6 * jnp.abs(first) + 1e-12)
        features = _fits_2016.features_of_states(samples.states[:, :, :-1], dimension)
        scales = _search.policy_scales(features, samples.actions)
        policy = _fits_2016.fit_policy(
            _search.init_policy(_policies.init_2016(init_key, config.hidden, dimension, scales)),
            _fits_2016.Demonstrations(samples, controllers, jnp.ones(count, bool)),
            jnp.float32(config.policy_fit.learning_rate),
            fit_key,
            config,
        )
        return SearchState(
            iteration=jnp.zeros((), jnp.int32),
            controllers=controllers,
            kl_weights=jnp.broadcast_to(config.kl_weight * unit[:, None], (count, config.horizon)),
            unit=unit,
            bounds=jnp.full(count, config.trust_region.max_divergence, jnp.float32),
            previous=jax.tree.map(jnp.array, controllers),
            costs=jnp.mean(samples.cost, axis=1),
            predicted=jnp.zeros(count, jnp.float32),
            policy=policy,
            best_params=jax.tree.map(jnp.array, policy.params),
            best_cost=jnp.full((), jnp.inf, jnp.float32),
        )

    def iterate(
        self, search: SearchState, functions: Functions, validation: Functions, key: chex.PRNGKey
    ) -> tuple[SearchState, dict[str, chex.Array]]:
        """Runs one iteration.

        Args:
          search: The state.
          functions: The training functions.
          validation: The validation functions.
          key: Consumed.

        Returns:
          The next state, and metrics for the history.
        """
        config = self._config
        sample_key, fit_key = jax.random.split(key)
        samples = self._sample(functions, search.controllers, sample_key)
        costs = jnp.mean(samples.cost, axis=1)
        bounds = _lqg.adapt_bound(
            search.bounds, search.predicted, search.costs - costs, config.trust_region
        )
        # Nothing is learned from controllers that have diverged.
        diverged = costs - search.costs > _MAX_INCREASE * config.horizon * search.unit
        valid = jnp.isfinite(costs) & ~diverged
        samples = _search.select(valid, samples, jax.tree.map(jnp.zeros_like, samples))
        improved, predicted, divergences = jax.vmap(
            functools.partial(self._improve, search.policy.params)
        )(samples, search.controllers, search.kl_weights, bounds)
        finite = jax.vmap(_search.is_finite)(improved)
        controllers = _search.select(finite, improved, search.controllers)
        controllers = _search.select(valid, controllers, search.previous)
        policy = _fits_2016.fit_policy(
            search.policy,
            _fits_2016.Demonstrations(samples, controllers, valid),
            _search.decayed(config.policy_fit.learning_rate, search.iteration, config.iterations),
            fit_key,
            config,
        )
        cost = jnp.mean(self._policy_costs(validation, policy.params)) / config.horizon
        better = cost < search.best_cost
        search = SearchState(
            iteration=search.iteration + 1,
            controllers=controllers,
            kl_weights=search.kl_weights + config.kl_weight * search.unit[:, None],
            unit=search.unit,
            bounds=bounds,
            previous=_search.select(valid, search.controllers, search.previous),
            costs=jnp.where(valid, costs, search.costs),
            predicted=jnp.where(valid & finite, predicted, 0.0),
            policy=policy,
            best_params=_search.select(better, policy.params, search.best_params),
            best_cost=jnp.where(better, cost, search.best_cost),
        )
        divergence = jnp.sum(jnp.where(valid & finite, divergences, 0.0)) / jnp.sum(valid)
        return search, {
            "controller_cost": jnp.mean(search.costs) / config.horizon,
            "policy_cost": jnp.mean(self._policy_costs(functions, policy.params)) / config.horizon,
            "validation_cost": cost,
            "policy_divergence": divergence,
            "bound": jnp.mean(bounds),
            "reverted": jnp.mean(~valid),
        }

    def _policy_costs(self, functions: Functions, params: chex.ArrayTree) -> chex.Array:
        """Costs of the policy's mean actions, `float32[M]`."""

        def cost(objective: Objective, start: chex.Array) -> chex.Array:
            return _rollouts_2016.rollout_policy(objective, start, params, self._config).cost

        costs: chex.Array = _rollouts_2016.map_functions(self._family, cost)(functions)
        return costs

    def _sample(
        self, functions: Functions, controllers: Controller, key: chex.PRNGKey
    ) -> Trajectory:
        """Trajectories of all functions, with leading axes `[M, N]`."""

        def sample(
            objective: Objective, start: chex.Array, controller: Controller, keys: chex.PRNGKey
        ) -> Trajectory:
            return jax.vmap(
                lambda key: _rollouts_2016.rollout_controller(
                    objective, start, controller, key, self._config
                )
            )(keys)

        keys = jax.random.split(key, (len(functions.starts), self._config.trajectories))
        mapped = _rollouts_2016.map_functions(self._family, sample)
        trajectories: Trajectory = mapped(functions, controllers, keys)
        return trajectories

    def _improve(
        self,
        params: chex.ArrayTree,
        samples: Trajectory,
        old: Controller,
        kl_weights: chex.Array,
        bound: chex.Array,
    ) -> tuple[Controller, chex.Array, chex.Array]:
        """Improves the controller of one function.

        Returns:
          The new controller, the predicted decrease of the cost, and the divergence from the policy
          per step.
        """
        config = self._config
        dimension = samples.actions.shape[-1]
        gain, offset = _fits_2016.linearize(params, samples.states[:, :-1], dimension)
        penalty = _lqg.PolicyPenalty(gain, offset, kl_weights, jnp.zeros_like(offset))
        first = samples.states[:, 0]
        centered = first - jnp.mean(first, axis=0)
        model = Model(
            dynamics=_fits_2016.fit_dynamics(samples, config),
            cost=_fits_2016.fit_cost(samples, config),
            start=Gaussian(jnp.mean(first, axis=0), centered.T @ centered / first.shape[0]),
            shift=1 + dimension,
        )
        improved = _lqg.improve(model, old, penalty, bound)
        policy = Controller(gain, offset, old.covariance)
        before = expectations(model, old, old)
        after = expectations(model, improved.controller, policy)
        # The noise of the solution itself would shrink from iteration to iteration, and the policy
        # would no longer learn from states beside the mean trajectory.
        actions = jnp.einsum("tas,nts->nta", improved.controller.gain, samples.states[:, :-1])
        covariance = _rollouts_2016.noise_covariance(
            actions + improved.controller.offset, config.noise
        )
        return (
            improved.controller._replace(covariance=covariance),
            jnp.sum(before.cost) - improved.cost,
            jnp.mean(after.divergence),
        )
