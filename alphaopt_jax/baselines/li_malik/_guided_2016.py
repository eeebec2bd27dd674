"""Guided policy search that learns the full-vector optimizer of 2016.

Each start of a training function has a controller of its own, which knows where on its function it
is; the one policy sees only histories. In every iteration controllers are sampled, dynamics and
cost are fitted to the samples, each controller is improved within its bound and pulled towards the
policy, and the policy learns to do what the controllers do. A controller's noise is set anew after
each improvement, in proportion to its actions; the bound is one on the solution before that. A
controller under which its function fell apart is taken back.

A run is a pure function of its family, config and seed, and one that is resumed ends with the same
parameters, bit for bit.

Source: Li & Malik 2016, *Learning to Optimize*, section 3; Levine & Abbeel 2014, *Learning Neural
Network Policies with Guided Policy Search under Unknown Dynamics*.
"""

from __future__ import annotations

from collections.abc import Callable
import os
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from alphaopt_jax._storage import progress as progress_lib
from alphaopt_jax._storage import run_folder
from alphaopt_jax.baselines.li_malik import (
    _history,
    _linalg,
    _lqg,
    _policies,
    _regression,
    _rollouts_2016,
    _search,
)
from alphaopt_jax.baselines.li_malik._config import Config2016
from alphaopt_jax.baselines.li_malik._linear_gaussian import (
    Controller,
    Cost,
    Dynamics,
    Gaussian,
    expectations,
)
from alphaopt_jax.baselines.li_malik._rollouts_2016 import Functions, Trajectory
from alphaopt_jax.tasks.task import Family

_DEFAULT_CONFIG = Config2016()
# A cost that rises by this much of what the first controller gained is no noise.
_MUCH_WORSE = 0.5


class Search2016(NamedTuple):
    """Everything that a search consists of, between two iterations.

    Attributes:
      iteration: How many there were, `int32[]`.
      controllers: With an axis `[M]` before their own, for the starts of all training functions.
      weights: ν of the divergence from the policy, `float32[M, T]`.
      unit: What the first controller gains in a typical step, `float32[M]`.
      bounds: ε of each controller, `float32[M]`.
      previous: The controllers before the last iteration.
      costs: Theirs, `float32[M]`, summed over T steps.
      promised: By how much the last iteration was to lower them, `float32[M]`.
      params: The policy's, as in `policies.Policy2016`.
      adam: State of its optimizer.
      best_params: Those with the least cost on the validation functions so far.
      best_cost: Theirs, `float32[]`.
    """

    iteration: chex.Array
    controllers: Controller
    weights: chex.Array
    unit: chex.Array
    bounds: chex.Array
    previous: Controller
    costs: chex.Array
    promised: chex.Array
    params: chex.ArrayTree
    adam: optax.OptState
    best_params: chex.ArrayTree
    best_cost: chex.Array


class Result2016(NamedTuple):
    """What comes out of `train_2016`.

    Attributes:
      policy: The policy that was best on the validation functions.
      cost: Its mean cost there: of the objective over T steps and all functions.
      momentum_cost: The same of gradient descent with momentum, tuned for each function.
      history: A line for each iteration: "round", "controller_cost" and "policy_cost" (as `cost`,
        but on the training functions; the controllers' with their noise), "validation_cost" (as
        `cost`), "policy_divergence" (nats between controller and
        policy, a step), "bound" (mean ε), "taken_back" (share of functions whose controllers fell
        apart).
    """

    policy: _policies.Policy2016
    cost: float
    momentum_cost: float
    history: list[dict[str, Any]]


def train_2016(
    family: Family,
    config: Config2016 = _DEFAULT_CONFIG,
    *,
    num_functions: int = 90,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    show: bool = True,
) -> Result2016:
    """Learns an optimizer for the functions of one family.

    A training function is one instance of the family with one batch, from a few starts: guided
    policy search is for deterministic objectives, as of families whose batches are all of their
    data.

    Args:
      family: What to train on. All its tasks have the same number of parameters.
      config: The constants.
      num_functions: Training functions, each from `config.starts` starts.
      seed: Of everything random.
      folder: Where to keep checkpoints; a search that was interrupted goes on from the last.
      show: Whether to show progress.

    Returns:
      The policy and its history.

    Raises:
      ValueError: `folder` holds another run.

    Example:
      >>> from alphaopt_jax.tasks.families.quadratics import quadratics
      >>> family = quadratics("bowls", 2, distances=(0.5, 1.0), rotated_share=0.5)
      >>> config = Config2016(
      ...     history=3, horizon=5, trajectories=4, iterations=1, clusters=2, policy_updates=5
      ... )
      >>> result = train_2016(family, config, num_functions=3, show=False)
      >>> result.policy.dimension, len(result.history)
      (2, 1)
    """
    identity = {
        "family": family.name,
        "config": repr(config),
        "num_functions": num_functions,
        "seed": seed,
    }
    store = run_folder.Store(folder, identity)
    functions_key, unseen_key, begin_key, stream = jax.random.split(jax.random.key(seed), 4)
    draw = jax.jit(_rollouts_2016.draw_functions, static_argnums=(0, 2, 3))
    functions = draw(family, functions_key, num_functions, config.starts)
    unseen = draw(family, unseen_key, config.validation_functions)
    tune = jax.jit(_over(family, _rollouts_2016.best_momentum, config))
    starting, momentum_costs = tune(functions)
    momentum_cost = float(jnp.mean(tune(unseen)[1])) / config.horizon
    search = store.restore(
        lambda: jax.jit(make_begin(family, config))(starting, momentum_costs, functions, begin_key)
    )
    history = store.read_history(int(search.iteration))
    iterate = jax.jit(make_iteration(family, config), donate_argnums=0)
    with progress_lib.Progress("guided policy search", config.iterations, show=show) as progress:
        for number in range(int(search.iteration), config.iterations):
            key = jax.random.fold_in(stream, number)
            search, metrics = iterate(search, functions, unseen, key)
            entry = {"round": number} | {name: float(value) for name, value in metrics.items()}
            history.append(entry)
            store.append_history(entry)
            store.save(number + 1, search)
            progress.update(
                number + 1,
                f"cost {entry['validation_cost']:.4f} (momentum {momentum_cost:.4f};"
                f" in training {entry['policy_cost']:.4f},"
                f" controllers {entry['controller_cost']:.4f})",
            )
    return Result2016(
        _policies.Policy2016(jax.device_get(search.best_params), config.current_gradient),
        float(search.best_cost),
        momentum_cost,
        history,
    )


def make_begin(
    family: Family, config: Config2016
) -> Callable[[Controller, chex.Array, Functions, chex.PRNGKey], Search2016]:
    """Returns the start of a search as a function to compile.

    It maps controllers, their costs without noise `float32[M]`, functions and a key (consumed) to
    a search whose policy has learned to do what these controllers do.
    """

    def begin(
        controllers: Controller, costs: chex.Array, functions: Functions, key: chex.PRNGKey
    ) -> Search2016:
        count, dimension = functions.starts.shape
        sample_key, init_key, fit_key = jax.random.split(key, 3)
        samples = _sample(family, functions, controllers, sample_key, config)
        first = samples.objectives[:, 0, 0]
        unit = jnp.maximum(first - costs / config.horizon, 1e-6 * jnp.abs(first) + 1e-12)
        features = _features(samples.states[:, :, :-1], dimension)
        scales = {
            "features": _search.root_mean_square(features, (0, 1, 2)),
            "step": _search.root_mean_square(samples.actions, None),
        }
        params = _policies.init_2016(init_key, config.hidden, dimension, scales)
        adam = optax.scale_by_adam().init(params["network"])
        rate = jnp.float32(config.learning_rate)
        kept = jnp.ones(count, bool)
        params, adam = fit_policy(params, adam, samples, controllers, kept, rate, fit_key, config)
        return Search2016(
            iteration=jnp.zeros((), jnp.int32),
            controllers=controllers,
            weights=jnp.broadcast_to(config.pull * unit[:, None], (count, config.horizon)),
            unit=unit,
            bounds=jnp.full(count, config.bound, jnp.float32),
            previous=jax.tree.map(jnp.array, controllers),
            costs=jnp.mean(samples.cost, axis=1),
            promised=jnp.zeros(count, jnp.float32),
            params=params,
            adam=adam,
            best_params=jax.tree.map(jnp.array, params),
            best_cost=jnp.full((), jnp.inf, jnp.float32),
        )

    return begin


def make_iteration(
    family: Family, config: Config2016
) -> Callable[..., tuple[Search2016, dict[str, chex.Array]]]:
    """Returns one iteration as a function to compile.

    It maps a search, its functions, those to validate on and a key (consumed) to the search after
    the iteration and what is to be told of it.
    """

    def judge(functions: Functions, params: chex.ArrayTree) -> chex.Array:
        def cost(
            objective: _rollouts_2016.Objective, start: chex.Array, config: Config2016
        ) -> chex.Array:
            return _rollouts_2016.follow_policy(objective, start, params, config).cost

        return _over(family, cost, config)(functions)

    def iterate(
        search: Search2016, functions: Functions, unseen: Functions, key: chex.PRNGKey
    ) -> tuple[Search2016, dict[str, chex.Array]]:
        sample_key, fit_key = jax.random.split(key)
        samples = _sample(family, functions, search.controllers, sample_key, config)
        costs = jnp.mean(samples.cost, axis=1)
        bounds = _lqg.adapt_bound(
            search.bounds,
            search.promised,
            search.costs - costs,
            least=config.least_bound * config.bound,
            most=config.bound,
        )

        def improve(
            samples: Trajectory, old: Controller, weights: chex.Array, bound: chex.Array
        ) -> tuple[Controller, chex.Array, chex.Array]:
            return _improve(samples, old, weights, bound, search.params, config)

        # Where controllers fell apart, nothing is learned from what they did.
        worse = costs - search.costs > _MUCH_WORSE * config.horizon * search.unit
        kept = jnp.isfinite(costs) & ~worse
        samples = _choose(kept, samples, jax.tree.map(jnp.zeros_like, samples))
        controllers, promised, apart = jax.vmap(improve)(
            samples, search.controllers, search.weights, bounds
        )
        sound = jax.vmap(_search.is_finite)(controllers)
        controllers = _choose(sound, controllers, search.controllers)
        controllers = _choose(kept, controllers, search.previous)
        rate = config.learning_rate * (1.0 - 0.9 * search.iteration / config.iterations)
        params, adam = fit_policy(
            search.params, search.adam, samples, controllers, kept, rate, fit_key, config
        )
        cost = jnp.mean(judge(unseen, params)) / config.horizon
        better = cost < search.best_cost
        search = Search2016(
            iteration=search.iteration + 1,
            controllers=controllers,
            weights=search.weights + config.pull * search.unit[:, None],
            unit=search.unit,
            bounds=bounds,
            previous=_choose(kept, search.controllers, search.previous),
            costs=jnp.where(kept, costs, search.costs),
            promised=jnp.where(kept & sound, promised, 0.0),
            params=params,
            adam=adam,
            best_params=jax.tree.map(
                lambda new, old: jnp.where(better, new, old), params, search.best_params
            ),
            best_cost=jnp.where(better, cost, search.best_cost),
        )
        return search, {
            "controller_cost": jnp.mean(search.costs) / config.horizon,
            "policy_cost": jnp.mean(judge(functions, params)) / config.horizon,
            "validation_cost": cost,
            "policy_divergence": jnp.sum(jnp.where(kept & sound, apart, 0.0)) / jnp.sum(kept),
            "bound": jnp.mean(bounds),
            "taken_back": jnp.mean(~kept),
        }

    return iterate


def fit_dynamics(samples: Trajectory, config: Config2016) -> Dynamics:
    """Fits how the location and the latest observation move.

    The location moves by the action, exactly; the new observation is regressed on the location, the
    latest gradient and the action. The latest change of the objective says nothing beside these;
    as it becomes tiny, it would only be a way for errors of the fit to grow. Everything older in
    the state only shifts.

    Args:
      samples: N trajectories, with an axis `[N]` before their own.
      config: The constants.

    Returns:
      Dynamics of a head of 2d + 1 entries.
    """
    dimension = samples.actions.shape[-1]
    head = 2 * dimension + 1
    now, then = samples.states[:, :-1, :head], samples.states[:, 1:, dimension:head]
    regression = _regression.fit(
        jnp.concatenate([jnp.delete(now, dimension, axis=-1), samples.actions, then], axis=-1),
        3 * dimension,
        num_clusters=config.clusters,
        num_rounds=config.cluster_rounds,
        prior_samples=config.prior_samples,
    )
    of_state, of_action = jnp.split(regression.coefficients, [2 * dimension], axis=-1)
    observed = jnp.insert(of_state, dimension, 0.0, axis=-1)
    horizon = samples.actions.shape[1]
    known = jnp.broadcast_to(jnp.eye(dimension, head), (horizon, dimension, head))
    added = jnp.broadcast_to(jnp.eye(dimension), (horizon, dimension, dimension))
    return Dynamics(
        transition=jnp.concatenate([known, observed], axis=1),
        control=jnp.concatenate([added, of_action], axis=1),
        constant=jnp.pad(regression.constant, ((0, 0), (dimension, 0))),
        covariance=jnp.pad(regression.covariance, ((0, 0), (dimension, 0), (dimension, 0))),
    )


def fit_cost(samples: Trajectory, config: Config2016) -> Cost:
    """Fits the objective after each step as a quadratic of the location.

    Its Hessian is what the gradients regress on the locations with, made positive semidefinite;
    its gradient at the samples' mean is their mean gradient, and their mean objective is met.

    Args:
      samples: N trajectories, with an axis `[N]` before their own.
      config: The constants.
    """
    dimension = samples.actions.shape[-1]
    locations, gradients = samples.states[:, 1:, :dimension], samples.gradients[:, 1:]
    regression = _regression.fit(
        jnp.concatenate([locations, gradients], axis=-1),
        dimension,
        num_clusters=config.clusters,
        num_rounds=config.cluster_rounds,
        prior_samples=config.prior_samples,
    )
    hessian = jax.vmap(_linalg.positive_part)(regression.coefficients)
    centre, slope = jnp.mean(locations, axis=0), jnp.mean(gradients, axis=0)
    gradient = slope - jnp.einsum("tij,tj->ti", hessian, centre)
    curved = 0.5 * jnp.einsum("nti,tij,ntj->nt", locations, hessian, locations)
    rest = samples.objectives[:, 1:] - curved - jnp.einsum("nti,ti->nt", locations, gradient)
    return Cost(hessian, gradient, jnp.mean(rest, axis=0))


def linearise(
    params: chex.ArrayTree, states: chex.Array, dimension: int
) -> tuple[chex.Array, chex.Array]:
    """The policy as a linear function of the state, about the samples' mean state.

    Args:
      params: The policy's.
      states: `float32[N, T, n]`.
      dimension: d.

    Returns:
      Gain `float32[T, d, n]` and offset `float32[T, d]`, with which the mean of the policy's
      actions over the samples is met.
    """

    def action(state: chex.Array, points: chex.Array) -> chex.Array:
        features = _history.features_of_state(state, points, dimension)
        return _policies.step_2016(params, features)

    centre = jnp.mean(states, axis=0)
    points = jnp.arange(1, states.shape[1] + 1)
    gain = jax.vmap(jax.jacrev(action))(centre, points)
    actions = jax.vmap(jax.vmap(action), in_axes=(0, None))(states, points)
    offset = jnp.mean(actions, axis=0) - jnp.einsum("tan,tn->ta", gain, centre)
    return gain, offset


def fit_policy(
    params: chex.ArrayTree,
    adam: optax.OptState,
    samples: Trajectory,
    controllers: Controller,
    kept: chex.Array,
    rate: chex.Array,
    key: chex.PRNGKey,
    config: Config2016,
) -> tuple[chex.ArrayTree, optax.OptState]:
    """Teaches the policy the controllers' mean actions, by squared Mahalanobis distance.

    Args:
      params: The policy's.
      adam: State of its optimizer.
      samples: With axes `[M, N]` for functions and trajectories before their own.
      controllers: What to do in the samples' states; an axis `[M]` before their own.
      kept: Which functions to learn from, `bool[M]`.
      rate: Adam's learning rate, `float32[]`.
      key: Consumed.
      config: The constants.

    Returns:
      The policy's parameters and the optimizer's state.
    """
    states = samples.states[:, :, :-1]
    count, trajectories_each, horizon, _ = states.shape
    dimension = samples.actions.shape[-1]
    targets = jnp.einsum("mtas,mnts->mnta", controllers.gain, states)
    targets += controllers.offset[:, None]
    precisions, _ = jax.vmap(jax.vmap(_linalg.inverse))(controllers.covariance)

    def loss(network: chex.ArrayTree, key: chex.PRNGKey) -> chex.Array:
        chosen = jax.random.randint(
            key, (config.policy_batch,), 0, count * trajectories_each * horizon
        )
        function, trajectory, step = jnp.unravel_index(chosen, states.shape[:3])
        features = jax.vmap(_history.features_of_state, in_axes=(0, 0, None))(
            states[function, trajectory, step], step + 1, dimension
        )
        actions = _policies.step_2016(params | {"network": network}, features)
        off = actions - targets[function, trajectory, step]
        distances = jnp.einsum("ba,bac,bc->b", off, precisions[function, step], off)
        return jnp.mean(jnp.where(kept[function], distances, 0.0))

    def one_update(carry: Any, key: chex.PRNGKey) -> tuple[Any, None]:
        network, adam = carry
        updates, adam = optax.scale_by_adam().update(jax.grad(loss)(network, key), adam)
        return (optax.apply_updates(network, optax.tree.scale(-rate, updates)), adam), None

    (network, adam), _ = jax.lax.scan(
        one_update, (params["network"], adam), jax.random.split(key, config.policy_updates)
    )
    return params | {"network": network}, adam


def _improve(
    samples: Trajectory,
    old: Controller,
    weights: chex.Array,
    bound: chex.Array,
    params: chex.ArrayTree,
    config: Config2016,
) -> tuple[Controller, chex.Array, chex.Array]:
    """One function's new controller, the promised gain and its divergence from the policy."""
    dimension = samples.actions.shape[-1]
    dynamics, cost = fit_dynamics(samples, config), fit_cost(samples, config)
    gain, offset = linearise(params, samples.states[:, :-1], dimension)
    pull = _lqg.Pull(gain, offset, weights, jnp.zeros_like(offset))
    first, shift = samples.states[:, 0], 1 + dimension
    centred = first - jnp.mean(first, axis=0)
    start = Gaussian(jnp.mean(first, axis=0), centred.T @ centred / first.shape[0])
    improved = _lqg.improve(dynamics, cost, old, pull, start, bound, shift)
    policy = Controller(gain, offset, old.covariance)
    before = expectations(dynamics, old, old, cost, start, shift)
    after = expectations(dynamics, improved.controller, policy, cost, start, shift)
    # The noise that the solution has would shrink from iteration to iteration, and with it what
    # the policy learns of the places beside the track.
    actions = jnp.einsum("tas,nts->nta", improved.controller.gain, samples.states[:, :-1])
    covariance = _rollouts_2016.noise_covariance(actions + improved.controller.offset, config)
    return (
        improved.controller._replace(covariance=covariance),
        jnp.sum(before.cost) - improved.cost,
        jnp.mean(after.divergence),
    )


def _over(family: Family, of_one: Callable[..., Any], config: Config2016) -> Callable[..., Any]:
    """A function of an objective and its start, for all training functions at once."""

    def of_all(functions: Functions, *others: Any) -> Any:
        def one(instance: Any, batch: Any, start: chex.Array, *others: Any) -> Any:
            objective = _rollouts_2016.objective_of(family, instance, batch)
            return of_one(objective, start, *others, config)

        return jax.vmap(one)(*functions, *others)

    return of_all


def _sample(
    family: Family,
    functions: Functions,
    controllers: Controller,
    key: chex.PRNGKey,
    config: Config2016,
) -> Trajectory:
    """Trajectories of all functions, with axes `[M, N]` before their own."""

    def one(
        instance: Any, batch: Any, start: chex.Array, controller: Controller, keys: chex.PRNGKey
    ) -> Trajectory:
        objective = _rollouts_2016.objective_of(family, instance, batch)

        def follow(key: chex.PRNGKey) -> Trajectory:
            return _rollouts_2016.follow_controller(objective, start, controller, key, config)

        return jax.vmap(follow)(keys)

    keys = jax.random.split(key, (len(functions.starts), config.trajectories))
    return jax.vmap(one)(*functions, controllers, keys)


def _features(states: chex.Array, dimension: int) -> chex.Array:
    """From states `float32[M, N, T, n]` to the policy's features, `float32[M, N, T, F]`."""
    of_time = jax.vmap(_history.features_of_state, in_axes=(0, 0, None))
    of_all = jax.vmap(jax.vmap(of_time, in_axes=(0, None, None)), in_axes=(0, None, None))
    return of_all(states, jnp.arange(1, states.shape[2] + 1), dimension)


def _choose(condition: chex.Array, new: Any, old: Any) -> Any:
    """Function by function, one or the other of two trees with a first axis `[M]`."""

    def of_leaf(one: chex.Array, other: chex.Array) -> chex.Array:
        return jnp.where(condition.reshape(-1, *(1,) * (one.ndim - 1)), one, other)

    return jax.tree.map(of_leaf, new, old)
