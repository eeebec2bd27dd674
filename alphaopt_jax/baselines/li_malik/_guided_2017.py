"""Guided policy search that learns the coordinatewise optimizer of 2017, on one function.

Each group of coordinates has a controller of its own, which sees 130 smoothed steps of the past;
the one recurrent policy sees the last three points. In every iteration controllers are sampled,
dynamics and cost are fitted to the samples, coordinate by coordinate and alike within a group, each
controller is improved within its bound and pulled towards the policy, and the policy learns to do
what the controllers do. The multipliers of Bregman ADMM hold the mean actions of both together.

Two things that the paper leaves open are chosen here. The cost of a coordinate is a quadratic in
the objective's gradient alone, whose weights, one for each group and none negative, are those with
which the objective is best explained. Neither controllers nor policy see that gradient: of what
they do see, a batch's, smoothed over iterates, a controller would learn to cancel the noise that it
knows to be in the next one. And the noise of a group's coordinates is correlated (see
`config.Config2017`). An iteration whose controllers turn out worse than the best ones before goes
back to these, with a smaller bound.

Source: Li & Malik 2017, *Learning to Optimize Neural Nets*, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable
import os
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax._storage import progress as progress_lib
from alphaopt_jax._storage import run_folder
from alphaopt_jax.baselines.li_malik import _lqg, _policies, _regression, _rollouts_2017, _search
from alphaopt_jax.baselines.li_malik._config import Config2017
from alphaopt_jax.baselines.li_malik._linear_gaussian import (
    Controller,
    Cost,
    Dynamics,
    Gaussian,
    expectations,
)
from alphaopt_jax.baselines.li_malik._rollouts_2017 import Problem, Samples
from alphaopt_jax.tasks.task import Family, Task

_DEFAULT_CONFIG = Config2017()
# A cost that is higher than that of the best controllers by this share is worse, and no noise.
_WORSE = 1.05


class Search2017(NamedTuple):
    """Everything that a search consists of, between two iterations.

    Attributes:
      iteration: How many there were, `int32[]`.
      controllers: With an axis `[G]` for the groups before their own.
      accepted: The best controllers so far.
      accepted_cost: Theirs, `float32[]`, summed over T steps.
      multipliers: λ, `float32[G, T]`.
      bound: ε, `float32[]`.
      cost: Of the controllers before the last iteration, `float32[]`.
      promised: By how much the last iteration was to lower it, `float32[]`.
      params: The policy's, as in `policies.Policy2017`.
      adam: State of its optimizer.
      best_params: Those with the least cost so far.
      best_cost: Theirs, `float32[]`, mean over T steps.
    """

    iteration: chex.Array
    controllers: Controller
    accepted: Controller
    accepted_cost: chex.Array
    multipliers: chex.Array
    bound: chex.Array
    cost: chex.Array
    promised: chex.Array
    params: chex.ArrayTree
    adam: optax.OptState
    best_params: chex.ArrayTree
    best_cost: chex.Array


class Result2017(NamedTuple):
    """What comes out of `train_2017`.

    Attributes:
      policy: The policy that was best.
      cost: Its mean objective over T steps.
      momentum_cost: The same of gradient descent with momentum, tuned.
      history: A line for each iteration: "round", "controller_cost" and "policy_cost" (as `cost`;
        the controllers' with their noise), "policy_divergence" (nats between controller and
        policy, a step of a coordinate), "bound" (ε).
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
    show: bool = True,
) -> Result2017:
    """Learns a coordinatewise optimizer on one function, from a few starts.

    Args:
      task: What to train on; of a family, the task that is drawn with the seed.
      config: The constants.
      seed: Of everything random.
      folder: Where to keep checkpoints; a search that was interrupted goes on from the last.
      show: Whether to show progress.

    Returns:
      The policy and its history.

    Raises:
      ValueError: `folder` holds another run.
    """
    identity = {"task": task.name, "config": repr(config), "seed": seed}
    store = run_folder.Store(folder, identity)
    task_key, problem_key, begin_key, stream = jax.random.split(jax.random.key(seed), 4)
    if isinstance(task, Family):
        task = task.draw(task_key)
    problem = _rollouts_2017.as_problem(task, config, problem_key)
    search, momentum_cost = jax.jit(make_begin(problem, config))(begin_key)
    search = store.restore(lambda: search)
    history = store.read_history(int(search.iteration))
    iterate = jax.jit(make_iteration(problem, config), donate_argnums=0)
    momentum = float(momentum_cost)
    with progress_lib.Progress("guided policy search", config.iterations, show=show) as progress:
        for number in range(int(search.iteration), config.iterations):
            search, metrics = iterate(search, jax.random.fold_in(stream, number))
            entry = {"round": number} | {name: float(value) for name, value in metrics.items()}
            history.append(entry)
            store.append_history(entry)
            store.save(number + 1, search)
            progress.update(
                number + 1,
                f"cost {entry['policy_cost']:.4f} (controllers {entry['controller_cost']:.4f},"
                f" momentum {momentum:.4f})",
            )
    return Result2017(
        _policies.Policy2017(jax.device_get(search.best_params)),
        float(search.best_cost),
        momentum,
        history,
    )


def make_begin(
    problem: Problem, config: Config2017
) -> Callable[[chex.PRNGKey], tuple[Search2017, chex.Array]]:
    """Returns the start of a search as a function to compile.

    It maps a key (consumed) to a search whose controllers are the best momentum, with noise, and
    whose policy has learned to do what they do; and to the mean objective of that momentum.
    """

    def begin(key: chex.PRNGKey) -> tuple[Search2017, chex.Array]:
        tune_key, choose_key, sample_key, init_key, fit_key = jax.random.split(key, 5)
        quiet, cost = _best_momentum(problem, tune_key, config)
        chosen = _rollouts_2017.choose(problem, choose_key, config.coordinates)
        keys = jax.random.split(sample_key, config.trajectories)
        sizes = jnp.mean(_sample(problem, quiet, chosen, keys, config).sizes, axis=0)
        controllers = quiet._replace(covariance=_noise_covariance(sizes, config))
        samples = _sample(problem, controllers, chosen, keys, config)
        scales = {
            "features": _search.root_mean_square(samples.observations, (0, 1, 2, 3)),
            "step": _search.root_mean_square(samples.actions, None),
        }
        params = _policies.init_2017(init_key, config.width, scales)
        adam = optax.scale_by_adam().init(params["network"])
        linear = jnp.zeros((problem.num_groups, config.horizon))
        rate = jnp.float32(config.learning_rate)
        params, adam = fit_policy(params, adam, samples, controllers, linear, rate, fit_key, config)
        sampled_cost = jnp.mean(samples.cost)
        search = Search2017(
            iteration=jnp.zeros((), jnp.int32),
            controllers=controllers,
            accepted=jax.tree.map(jnp.array, controllers),
            accepted_cost=sampled_cost,
            multipliers=linear,
            bound=jnp.asarray(config.bound, jnp.float32),
            cost=jnp.array(sampled_cost),
            promised=jnp.zeros((), jnp.float32),
            params=params,
            adam=adam,
            best_params=jax.tree.map(jnp.array, params),
            best_cost=jnp.full((), jnp.inf, jnp.float32),
        )
        return search, cost / config.horizon

    return begin


def make_iteration(
    problem: Problem, config: Config2017
) -> Callable[[Search2017, chex.PRNGKey], tuple[Search2017, dict[str, chex.Array]]]:
    """Returns one iteration as a function to compile.

    It maps a search and a key (consumed) to the search after the iteration and what is to be told
    of it.
    """
    per_group = jnp.asarray(np.bincount(problem.groups), jnp.float32)

    def iterate(search: Search2017, key: chex.PRNGKey) -> tuple[Search2017, dict[str, chex.Array]]:
        choose_key, sample_key, fit_key = jax.random.split(key, 3)
        chosen = _rollouts_2017.choose(problem, choose_key, config.coordinates)
        keys = jax.random.split(sample_key, config.trajectories)
        samples = _sample(problem, search.controllers, chosen, keys, config)
        cost = jnp.mean(samples.cost)
        better = cost < search.accepted_cost
        search = search._replace(
            iteration=search.iteration + 1,
            accepted=_choose(better, search.controllers, search.accepted),
            accepted_cost=jnp.where(better, cost, search.accepted_cost),
            bound=_lqg.adapt_bound(
                search.bound,
                search.promised,
                search.cost - cost,
                least=config.least_bound * config.bound,
                most=config.bound,
            ),
        )
        good = cost <= _WORSE * search.accepted_cost
        search, apart = jax.lax.cond(good, learn, take_back, search, samples, cost, fit_key)
        # Always the same batches: policies are compared with each other.
        objectives = _rollouts_2017.follow_policy(
            problem, search.params, problem.starts[0], jax.random.key(0), config
        )
        policy_cost = jnp.mean(objectives[1:])
        best = policy_cost < search.best_cost
        search = search._replace(
            best_params=_choose(best, search.params, search.best_params),
            best_cost=jnp.where(best, policy_cost, search.best_cost),
        )
        return search, {
            "controller_cost": cost / config.horizon,
            "policy_cost": policy_cost,
            "policy_divergence": apart,
            "bound": search.bound,
        }

    def learn(
        search: Search2017, samples: Samples, cost: chex.Array, key: chex.PRNGKey
    ) -> tuple[Search2017, chex.Array]:
        weights = fit_cost(samples)
        mean_cost = 0.5 * weights * jnp.mean(samples.slopes, axis=(0, 1)) / per_group
        pull = config.pull * search.iteration * jnp.maximum(mean_cost, 1e-12)
        policy_actions = _policy_actions(search.params, samples)

        def improve(*of_group: Any) -> Any:
            return _improve(*of_group, bound=search.bound, config=config)

        improved, promised, apart = jax.vmap(improve, in_axes=(2, 2, 2, 2, 0, 0, 0, 0))(
            samples.states,
            samples.gradients,
            samples.actions,
            policy_actions,
            search.controllers,
            weights,
            pull,
            search.multipliers,
        )
        # The solution's own noise would shrink from iteration to iteration.
        sizes = jnp.mean(samples.sizes, axis=0)
        improved = improved._replace(covariance=_noise_covariance(sizes, config))
        sound = _search.is_finite(improved)
        controllers = _choose(sound, improved, search.controllers)
        params, adam = fit_policy(
            search.params,
            search.adam,
            samples,
            controllers,
            search.multipliers / pull[:, None],
            config.learning_rate * (1.0 - 0.9 * search.iteration / config.iterations),
            key,
            config,
        )
        difference = jnp.mean(
            _policy_actions(params, samples) - _controller_actions(controllers, samples),
            axis=(0, 3),
        )
        search = search._replace(
            controllers=controllers,
            multipliers=search.multipliers + config.dual_rate * pull[:, None] * difference.T,
            cost=cost,
            promised=jnp.where(sound, jnp.sum(per_group * promised), 0.0),
            params=params,
            adam=adam,
        )
        return search, jnp.mean(apart)

    def take_back(
        search: Search2017, samples: Samples, cost: chex.Array, key: chex.PRNGKey
    ) -> tuple[Search2017, chex.Array]:
        del samples, cost, key
        search = search._replace(
            controllers=search.accepted,
            cost=search.accepted_cost,
            promised=jnp.zeros_like(search.promised),
        )
        return search, jnp.zeros(())

    return iterate


def fit_cost(samples: Samples) -> chex.Array:
    """The weights of the groups' squared gradients that explain the objective best.

    Least squares over all steps and trajectories, with a constant, and no weight below zero: of
    objective = constant + ½ Σ_g weight_g Σ_{j in g} y_j², with y_j the objective's gradient.

    Args:
      samples: With an axis `[S]` for the trajectories before their own.

    Returns:
      `float32[G]`.
    """
    regressors = 0.5 * samples.slopes.reshape(-1, samples.slopes.shape[-1])
    scale = jnp.maximum(jnp.std(regressors, axis=0), 1e-30)
    standard = (regressors - jnp.mean(regressors, axis=0)) / scale
    targets = samples.objectives.ravel() - jnp.mean(samples.objectives)
    count = standard.shape[0]
    # The ridge lets groups whose gradients fall together share the weight.
    square = standard.T @ standard / count + 0.1 * jnp.eye(standard.shape[1])
    side = standard.T @ targets / count

    def one_group(index: chex.Array, weights: chex.Array) -> chex.Array:
        rest = side[index] - square[index] @ weights + square[index, index] * weights[index]
        return weights.at[index].set(jnp.maximum(rest / square[index, index], 0.0))

    def sweep(_: chex.Array, weights: chex.Array) -> chex.Array:
        return jax.lax.fori_loop(0, weights.shape[0], one_group, weights)

    return jax.lax.fori_loop(0, 50, sweep, jnp.zeros_like(side)) / scale


def fit_policy(
    params: chex.ArrayTree,
    adam: optax.OptState,
    samples: Samples,
    controllers: Controller,
    linear: chex.Array,
    rate: chex.Array,
    key: chex.PRNGKey,
    config: Config2017,
) -> tuple[chex.ArrayTree, optax.OptState]:
    """Teaches the policy the controllers' mean actions.

    By half the squared distance over the controllers' variance, and the multipliers' linear term.

    Args:
      params: The policy's.
      adam: State of its optimizer.
      samples: With an axis `[S]` for the trajectories before their own.
      controllers: What to do in the samples' states; an axis `[G]` before their own.
      linear: λ / ν, `float32[G, T]`.
      rate: Adam's learning rate, `float32[]`.
      key: Consumed.
      config: The constants.

    Returns:
      The policy's parameters and the optimizer's state.
    """
    targets = _controller_actions(controllers, samples)
    variances = controllers.covariance[:, :, 0, 0]
    shape = (targets.shape[0], *targets.shape[2:])

    def loss(network: chex.ArrayTree, key: chex.PRNGKey) -> chex.Array:
        chosen = jax.random.randint(key, (config.policy_batch,), 0, int(np.prod(shape)))
        trajectory, group, coordinate = jnp.unravel_index(chosen, shape)
        # An index beside slices comes first: `[batch, T, ...]`.
        observations = samples.observations[trajectory, :, group, coordinate]
        target = targets[trajectory, :, group, coordinate]
        actions = _actions(params | {"network": network}, observations.swapaxes(0, 1)).T
        distance = 0.5 * jnp.square(actions - target) / variances[group]
        return jnp.mean(distance + linear[group] * actions)

    def one_update(carry: Any, key: chex.PRNGKey) -> tuple[Any, None]:
        network, adam = carry
        # Backpropagation through 400 steps now and then explodes.
        gradient = jax.grad(loss)(network, key)
        norm = optax.tree.norm(gradient)
        gradient = optax.tree.scale(1.0 / jnp.maximum(norm, 1.0), gradient)
        updates, adam = optax.scale_by_adam().update(gradient, adam)
        return (optax.apply_updates(network, optax.tree.scale(-rate, updates)), adam), None

    (network, adam), _ = jax.lax.scan(
        one_update, (params["network"], adam), jax.random.split(key, config.policy_updates)
    )
    return params | {"network": network}, adam


def _improve(
    states: chex.Array,
    gradients: chex.Array,
    actions: chex.Array,
    policy_actions: chex.Array,
    old: Controller,
    weight: chex.Array,
    pull_weight: chex.Array,
    multipliers: chex.Array,
    *,
    bound: chex.Array,
    config: Config2017,
) -> tuple[Controller, chex.Array, chex.Array]:
    """One group's new controller, the gain it promises, and its divergence from the policy.

    Both are of one coordinate. `states` are `float32[S, T + 1, C, 76]`, `gradients`
    `float32[S, T + 1, C]`, actions `float32[S, T, C]`. Within, the gradient is the state's last
    entry, on which nothing depends but the cost.
    """
    size, horizon = states.shape[-1], config.horizon
    whole = jnp.concatenate([states, gradients[..., None]], axis=-1)

    def pooled(values: chex.Array) -> chex.Array:
        """From `[S, T, C, v]` to `[S C, T, v]`."""
        return jnp.moveaxis(values, 2, 1).reshape(-1, horizon, values.shape[-1])

    def blind(gain: chex.Array) -> chex.Array:
        """A gain on Φ as one on the whole state, `float32[..., 77]`."""
        return jnp.pad(gain, ((0, 0), (0, 0), (0, 1)))

    now = states[:, :-1]
    moves = _regression.fit(
        pooled(jnp.concatenate([now, actions[..., None], whole[:, 1:]], axis=-1)),
        size + 1,
        num_clusters=config.clusters,
        num_rounds=config.cluster_rounds,
        prior_samples=config.prior_samples,
    )
    dynamics = Dynamics(
        transition=blind(moves.coefficients[:, :, :size]),
        control=moves.coefficients[:, :, size:],
        constant=moves.constant,
        covariance=moves.covariance,
    )
    policy = _regression.fit(
        pooled(jnp.concatenate([now, policy_actions[..., None]], axis=-1)),
        size,
        num_clusters=1,
        num_rounds=1,
        prior_samples=config.prior_samples,
    )
    cost = Cost(
        hessian=jnp.zeros((horizon, size + 1, size + 1)).at[:, -1, -1].set(weight),
        gradient=jnp.zeros((horizon, size + 1)),
        constant=jnp.zeros(horizon),
    )
    first = whole[:, 0].reshape(-1, size + 1)
    start = Gaussian(jnp.mean(first, axis=0), jnp.cov(first, rowvar=False))
    pull = _lqg.Pull(
        blind(policy.coefficients),
        policy.constant,
        jnp.full(horizon, pull_weight),
        multipliers[:, None],
    )
    old = old._replace(gain=blind(old.gain))
    improved = _lqg.improve(dynamics, cost, old, pull, start, bound, size + 1)
    before = expectations(dynamics, old, old, cost, start, size + 1)
    toward = Controller(pull.gain, pull.offset, old.covariance)
    after = expectations(dynamics, improved.controller, toward, cost, start, size + 1)
    return (
        improved.controller._replace(gain=improved.controller.gain[..., :size]),
        jnp.sum(before.cost) - improved.cost,
        jnp.mean(after.divergence),
    )


def _best_momentum(
    problem: Problem, key: chex.PRNGKey, config: Config2017
) -> tuple[Controller, chex.Array]:
    """The momentum of least cost over the trajectory of one key, and that cost."""
    rates, decays = (
        axis.ravel() for axis in jnp.meshgrid(jnp.array(config.rates), jnp.array(config.decays))
    )
    nothing = jnp.zeros((problem.num_groups, 0), jnp.int32)

    def of_pair(pair: tuple[chex.Array, chex.Array]) -> chex.Array:
        controllers = _rollouts_2017.momentum(problem, *pair, config)
        cost = _rollouts_2017.follow_controllers(
            problem, controllers, problem.starts[0], nothing, key, config
        ).cost
        return jnp.where(jnp.isfinite(cost), cost, jnp.inf)

    costs = jax.lax.map(of_pair, (rates, decays))
    best = jnp.argmin(costs)
    return _rollouts_2017.momentum(problem, rates[best], decays[best], config), costs[best]


def _noise_covariance(sizes: chex.Array, config: Config2017) -> chex.Array:
    """From mean squared actions `float32[T, G]` to variances `float32[G, T, 1, 1]`."""
    largest = jnp.max(sizes, axis=0, keepdims=True)
    variances = jnp.maximum(config.exploration**2 * sizes, config.least_exploration**2 * largest)
    return jnp.maximum(variances, 1e-20).T[:, :, None, None]


def _sample(
    problem: Problem,
    controllers: Controller,
    chosen: chex.Array,
    keys: chex.PRNGKey,
    config: Config2017,
) -> Samples:
    """Trajectories, with an axis `[S]` before their own."""
    return jax.vmap(
        lambda start, key: _rollouts_2017.follow_controllers(
            problem, controllers, start, chosen, key, config
        )
    )(problem.starts, keys)


def _controller_actions(controllers: Controller, samples: Samples) -> chex.Array:
    """Mean actions in the samples' states, `float32[S, T, G, C]`."""
    states = samples.states[:, :-1]
    actions = jnp.einsum("gtn,stgcn->stgc", controllers.gain[:, :, 0], states)
    return actions + controllers.offset[:, :, 0].T[:, :, None]


def _policy_actions(params: chex.ArrayTree, samples: Samples) -> chex.Array:
    """Mean actions of the policy along the samples' observations, `float32[S, T, G, C]`."""
    return jnp.moveaxis(_actions(params, jnp.moveaxis(samples.observations, 1, 0)), 0, 1)


def _actions(params: chex.ArrayTree, observations: chex.Array) -> chex.Array:
    """From observations `float32[T, ..., 3]` to mean actions `float32[T, ...]`."""
    width = params["network"]["output"]["kernel"].shape[0]
    carry = _policies.zero_carry(observations.shape[1:-1], width)

    def step(
        carry: _policies.Carry, observations: chex.Array
    ) -> tuple[_policies.Carry, chex.Array]:
        return _policies.step_2017(params, carry, observations)

    return jax.lax.scan(step, carry, observations)[1]


def _choose(condition: chex.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda one, other: jnp.where(condition, one, other), new, old)
