"""Parts of guided policy search shared by the searches of 2016 and 2017."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import chex
import jax
import jax.numpy as jnp
import optax

from alphaopt_jax._storage import progress as progress_lib
from alphaopt_jax._storage import run_folder
from alphaopt_jax.baselines.li_malik._config import MomentumGrid


class SearchState(Protocol):
    """State of a search between two iterations."""

    @property
    def iteration(self) -> chex.Array:
        """Iterations so far, `int32[]`."""


State = TypeVar("State", bound=SearchState)


class PolicyState(NamedTuple):
    """A policy in training.

    Attributes:
      params: Parameters of a `Policy2016` or `Policy2017`.
      opt_state: State of Adam for the parameters of its network.
    """

    params: chex.ArrayTree
    opt_state: optax.OptState


def init_policy(params: Mapping[str, chex.ArrayTree]) -> PolicyState:
    """Returns a policy that has not been trained, with these parameters."""
    return PolicyState(params, optax.scale_by_adam().init(params["network"]))


def fit_network(
    policy: PolicyState,
    loss: Callable[[chex.ArrayTree, chex.PRNGKey], chex.Array],
    learning_rate: chex.Numeric,
    keys: chex.PRNGKey,
    *,
    max_gradient_norm: float | None = None,
) -> PolicyState:
    """Trains the policy's network with Adam.

    Args:
      policy: The policy.
      loss: From the network's parameters and a key (consumed) to the loss of a random batch.
      learning_rate: Learning rate of Adam.
      keys: `key[updates]`, consumed.
      max_gradient_norm: Gradients are clipped to this norm, unless None.

    Returns:
      The policy after all updates.
    """

    def update(carry: Any, key: chex.PRNGKey) -> tuple[Any, None]:
        network, opt_state = carry
        gradient = jax.grad(loss)(network, key)
        if max_gradient_norm is not None:
            norm = optax.tree.norm(gradient)
            scale = max_gradient_norm / jnp.maximum(norm, max_gradient_norm)
            gradient = optax.tree.scale(scale, gradient)
        updates, opt_state = optax.scale_by_adam().update(gradient, opt_state)
        network = optax.apply_updates(network, optax.tree.scale(-learning_rate, updates))
        return (network, opt_state), None

    (network, opt_state), _ = jax.lax.scan(
        update, (policy.params["network"], policy.opt_state), keys
    )
    return PolicyState(policy.params | {"network": network}, opt_state)


def decayed(learning_rate: float, iteration: chex.Array, num_iterations: int) -> chex.Array:
    """Returns the learning rate at an iteration; it decays linearly to a tenth."""
    return learning_rate * (1.0 - 0.9 * iteration / num_iterations)


def policy_scales(features: chex.Array, actions: chex.Array) -> dict[str, chex.Array]:
    """Returns the scales of a policy's features `float32[..., F]` and of its step."""
    return {
        "features": root_mean_square(features, tuple(range(features.ndim - 1))),
        "step": root_mean_square(actions, None),
    }


def momentum_pairs(grid: MomentumGrid) -> tuple[chex.Array, chex.Array]:
    """Returns learning rate and decay of all pairs of a grid, two `float32[pairs]`."""
    rates, decays = jnp.meshgrid(jnp.array(grid.learning_rates), jnp.array(grid.decays))
    return rates.ravel(), decays.ravel()


def run(
    store: run_folder.Store,
    search: State,
    iterate: Callable[[int, State], tuple[State, Mapping[str, chex.Array]]],
    num_iterations: int,
    *,
    describe: Callable[[Mapping[str, float]], str],
    show: bool,
) -> State:
    """Runs a search to its end.

    Args:
      store: Receives checkpoints and history.
      search: The first state, or a restored one.
      iterate: From the number of iterations so far and the state to the next state and its metrics.
      num_iterations: Number of iterations in total.
      describe: From an entry of the history to the text beside the progress bar.
      show: True to show progress.

    Returns:
      The last state.
    """
    with progress_lib.Progress("guided policy search", num_iterations, show=show) as progress:
        for number in range(int(search.iteration), num_iterations):
            search, metrics = iterate(number, search)
            entry = {"round": number} | {name: float(value) for name, value in metrics.items()}
            store.append_history(entry)
            store.save(number + 1, search)
            progress.update(number + 1, describe(entry))
    return search


def is_finite(tree: Any) -> chex.Array:
    """Returns whether all numbers of a tree are finite, `bool[]`."""
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def select(condition: chex.Array, new: Any, old: Any) -> Any:
    """Returns leaves of `new` where a condition holds, else of `old`.

    Args:
      condition: `bool[...]`, shaped like the first axes of every leaf.
      new: A tree.
      old: A tree like `new`.
    """

    def select_leaf(one: chex.Array, other: chex.Array) -> chex.Array:
        trailing = (1,) * (one.ndim - condition.ndim) if condition.ndim else ()
        return jnp.where(condition.reshape(*condition.shape, *trailing), one, other)

    return jax.tree.map(select_leaf, new, old)


def root_mean_square(values: chex.Array, axes: tuple[int, ...] | None) -> chex.Array:
    """Returns the root mean square over `axes`, or over all axes; 1 in place of 0, to divide by.

    Example:
      >>> import jax.numpy as jnp
      >>> root_mean_square(jnp.array([[3.0, 0.0], [-3.0, 0.0]]), (0,)).tolist()
      [3.0, 1.0]
    """
    size = jnp.sqrt(jnp.mean(jnp.square(values), axis=axes))
    return jnp.where(size > 0, size, 1.0)
