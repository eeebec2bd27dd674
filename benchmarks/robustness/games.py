"""Two games between a generator and a discriminator, whose losses rise for good reasons.

- *Ring*: a network maps noise to points that should be spread evenly over a circle. The error is
  their sliced Wasserstein-2 distance from it.
- *Gaussian*: a linear generator learns the mean and the covariance of a normal distribution in two
  dimensions from a quadratic discriminator, the family in which the best discriminator
  between two normal distributions lies (Feizi et al. 2017, "Understanding GANs: the LQG
  setting"). The error is the Wasserstein-2 distance.

Both play the non-saturating game (Goodfellow et al. 2014), one step of each player in turn. An
optimizer is evaluated where it is used: AlphaOpt at `eval_params`, Adam at its last parameters, and
at an average of them with the same weights as AlphaOpt's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import alphaopt_jax as alphaopt
from alphaopt_jax._optimizer import averages
from benchmarks.common import results
from benchmarks.common.modes import LEARN_NO_HORIZON, NO_HORIZON

STEPS, SEEDS = 1500, 3
"""Steps of each player, and runs of each optimizer."""
RADIUS = 2.0
"""Distance of the ring from the origin."""
MEAN = np.array([2.0, -1.0], np.float32)
ROOT = np.array([[1.5, 0.0], [0.8, 0.5]], np.float32)
"""Mean and Cholesky root of the covariance of the normal distribution that is learned."""
_BATCH, _HIDDEN, _NOISE, _TESTED = 128, 32, 4, 1000
WITH, WITHOUT = f"{NO_HORIZON}, with `value`", f"{NO_HORIZON}, without `value`"
LEARNING = f"{LEARN_NO_HORIZON}, with `value`"
USUAL = ("Adam 2e-4", "Adam 1e-3")
AVERAGED = tuple(f"{name}, averaged" for name in USUAL)

Params = dict[str, chex.Array]
Network = Callable[[Params, chex.Array], chex.Array]


class Game(NamedTuple):
    """A game, and the error of its generator.

    Attributes:
      draw: From a key to real points, `float32[batch, 2]`.
      generator: From parameters and noise, `float32[batch, noise]`, to points.
      discriminator: From parameters and points to the logits of being real, `float32[batch, 1]`.
      init: From a key to the parameters of both.
      error: From generated points to their distance from the real ones, `float32[]`.
      mean: Mean of the real points, `float32[2]`.
    """

    draw: Callable[[chex.PRNGKey], chex.Array]
    generator: Network
    discriminator: Network
    init: Callable[[chex.PRNGKey], tuple[Params, Params]]
    error: Callable[[chex.Array], chex.Array]
    mean: np.ndarray


class Player(NamedTuple):
    """A player.

    Attributes:
      params: Dict of `float32` arrays.
      state: State of its optimizer.
      average: Average of the parameters, with the weights of AlphaOpt's own.
    """

    params: Params
    state: optax.OptState
    average: Params


def last_params(player: Player) -> Params:
    """The parameters after a player's last step."""
    return player.params


class GameOptimizer(NamedTuple):
    """An optimizer of both players.

    Attributes:
      tx: The optimizer.
      passes_value: True to pass each player's loss as `value`.
      evaluated: Maps a player to the parameters for its error.
    """

    tx: optax.GradientTransformation
    passes_value: bool
    evaluated: Callable[[Player], Params] = last_params


def game_optimizers() -> dict[str, GameOptimizer]:
    """All optimizers by name.

    Adam has a first decay of 0.5 and a rate of 2e-4 as in Radford et al. 2016 (DCGAN), or 1e-3, the
    default of most libraries.
    """

    def at_average(player: Player) -> Params:
        average: Params = alphaopt.eval_params(player.state, player.params)
        return average

    found = {
        WITH: GameOptimizer(alphaopt.alphaopt(), True, at_average),
        WITHOUT: GameOptimizer(alphaopt.alphaopt(), False, at_average),
        LEARNING: GameOptimizer(alphaopt.alphaopt(learn=True), True, at_average),
    }
    for name, averaged, rate in zip(USUAL, AVERAGED, (2e-4, 1e-3), strict=True):
        adam = optax.adam(rate, b1=0.5)
        found[name] = GameOptimizer(adam, False)
        found[averaged] = GameOptimizer(adam, False, lambda player: player.average)
    return found


def _mlp(params: Params, inputs: chex.Array) -> chex.Array:
    hidden = jax.nn.leaky_relu(inputs @ params["first"] + params["first_bias"])
    return hidden @ params["second"]


def _init_mlp(key: chex.PRNGKey, inputs: int, outputs: int) -> Params:
    first, second = jax.random.split(key)
    return {
        "first": jax.random.normal(first, (inputs, _HIDDEN)) / np.sqrt(inputs),
        "first_bias": jnp.zeros(_HIDDEN),
        "second": jax.random.normal(second, (_HIDDEN, outputs)) / 6.0,
    }


def _ring(key: chex.PRNGKey) -> chex.Array:
    angles = 2.0 * np.pi * jax.random.uniform(key, (_BATCH,))
    return RADIUS * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)


def ring_error(points: chex.Array) -> chex.Array:
    """Sliced Wasserstein-2 distance of points from the ring, `float32[]` (Bonneel et al. 2015).

    The root mean square over 16 directions of the distance between the distributions of their
    projections. A generator of a part of the ring is far from it.

    Args:
      points: `float32[points, 2]`.

    Example:
      >>> angles = jnp.linspace(0.0, 2.0 * jnp.pi, 1000, endpoint=False)
      >>> ring = 2.0 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
      >>> bool(ring_error(ring) < 0.01), round(float(ring_error(0.0 * ring)), 3)
      (True, 1.414)
    """
    angles = np.pi * np.arange(16) / 16.0
    projected = points @ np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    ranks = (np.arange(len(points)) + 0.5) / len(points)
    real = RADIUS * np.cos(np.pi * (1.0 - ranks))[:, None].astype(np.float32)
    return jnp.sqrt(jnp.mean(jnp.square(jnp.sort(projected, axis=0) - real)))


def _linear(params: Params, noise: chex.Array) -> chex.Array:
    return noise @ params["root"] + params["mean"]


def _quadratic(params: Params, points: chex.Array) -> chex.Array:
    squares = jnp.sum((points @ params["squares"]) * points, axis=1, keepdims=True)
    return squares + points @ params["slopes"] + params["offset"]


def _init_gaussian(key: chex.PRNGKey) -> tuple[Params, Params]:
    root, squares, slopes = jax.random.split(key, 3)
    generator = {"root": 0.5 * jax.random.normal(root, (2, 2)), "mean": jnp.zeros(2)}
    discriminator = {
        "squares": 0.1 * jax.random.normal(squares, (2, 2)),
        "slopes": 0.1 * jax.random.normal(slopes, (2, 1)),
        "offset": jnp.zeros(1),
    }
    return generator, discriminator


def gaussian_error(points: chex.Array) -> chex.Array:
    """Wasserstein-2 distance of the points' normal distribution from the one to learn, `float32[]`.

    Args:
      points: `float32[points, 2]`; only their mean and covariance count.

    Example:
      >>> corners = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
      >>> exact = corners @ ROOT.T + MEAN
      >>> bool(gaussian_error(exact) < 1e-2)
      True
      >>> round(float(gaussian_error(exact + jnp.array([3.0, 4.0]))), 2)
      5.0
    """
    mean = jnp.mean(points, axis=0)
    covariance = (points - mean).T @ (points - mean) / len(points)
    # Singular values of the product of both roots are those of the root in the closed form.
    values, vectors = jnp.linalg.eigh(covariance)
    root = (vectors * jnp.sqrt(jnp.maximum(values, 0.0))) @ vectors.T
    common = jnp.sum(jnp.linalg.svd(root @ ROOT, compute_uv=False))
    squared = jnp.sum(jnp.square(mean - MEAN)) + jnp.trace(covariance) + np.sum(ROOT**2)
    return jnp.sqrt(jnp.maximum(squared - 2.0 * common, 0.0))


def _init_ring(key: chex.PRNGKey) -> tuple[Params, Params]:
    first, second = jax.random.split(key)
    return _init_mlp(first, _NOISE, 2), _init_mlp(second, 2, 1)


GAMES = {
    "ring": Game(_ring, _mlp, _mlp, _init_ring, ring_error, np.zeros(2, np.float32)),
    "Gaussian": Game(
        lambda key: jax.random.normal(key, (_BATCH, 2)) @ ROOT.T + MEAN,
        _linear,
        _quadratic,
        _init_gaussian,
        gaussian_error,
        MEAN,
    ),
}
"""All games by name."""


class Outcome(NamedTuple):
    """Outcomes of one game with each of several seeds; means over the last fifth of the steps.

    Attributes:
      errors: The generator's error, `[seeds]`.
      offsets: Distance of the mean of the generated points from that of the real ones, `[seeds]`.
      backed_off: Share of steps of either player with a backoff below 1, `[seeds]`; over all steps.
    """

    errors: np.ndarray
    offsets: np.ndarray
    backed_off: np.ndarray


def play(name: str, optimizer: GameOptimizer, seeds: Sequence[int], steps: int = STEPS) -> Outcome:
    """Plays a game.

    Args:
      name: One of `GAMES`.
      optimizer: The optimizer of both players.
      seeds: Seeds of the initial parameters, the noise and the real points, one game each.
      steps: Steps of each player.

    Returns:
      The outcomes, means over many steps because games circle around their solution.
    """
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    errors, offsets, backed_off = jax.device_get(_play(name, optimizer, keys, steps))
    last = slice(-max(steps // 5, 1), None)
    errors, offsets = (np.mean(each[:, last], axis=1) for each in (errors, offsets))
    return Outcome(errors, offsets, backed_off.mean(axis=1))


@functools.partial(jax.jit, static_argnums=(0, 1, 3))
@functools.partial(jax.vmap, in_axes=(None, None, 0, None))
def _play(
    name: str, optimizer: GameOptimizer, key: chex.PRNGKey, steps: int
) -> tuple[chex.Array, chex.Array, chex.Array]:
    game, tx = GAMES[name], optax.with_extra_args_support(optimizer.tx)
    init_key, stream = jax.random.split(key)
    generator, discriminator = game.init(init_key)
    width = _NOISE if game.generator is _mlp else 2

    def move(
        player: Player, loss_fn: Callable[[Params], chex.Array], number: chex.Array
    ) -> tuple[Player, chex.Array]:
        loss, grads = jax.value_and_grad(loss_fn)(player.params)
        value = {"value": loss} if optimizer.passes_value else {}
        updates, state = tx.update(grads, player.state, player.params, **value)
        backed_off = jnp.zeros(())
        if optimizer.passes_value:
            backed_off = jnp.where(alphaopt.metrics(state)["backoff"] < 1.0, 1.0, 0.0)
        params = optax.apply_updates(player.params, updates)
        weight = averages.weight(number + 1)
        average = jax.tree.map(
            lambda old, new: averages.update(old, new, weight), player.average, params
        )
        return Player(params, state, average), backed_off

    def step(
        players: tuple[Player, Player], number: chex.Array
    ) -> tuple[tuple[Player, Player], tuple[chex.Array, ...]]:
        generator, discriminator = players
        keys = jax.random.split(jax.random.fold_in(stream, number), 3)
        real, noise = game.draw(keys[0]), jax.random.normal(keys[1], (_BATCH, width))

        def discriminator_loss(params: Params) -> chex.Array:
            fake = game.discriminator(params, game.generator(generator.params, noise))
            return jnp.mean(jax.nn.softplus(-game.discriminator(params, real))) + jnp.mean(
                jax.nn.softplus(fake)
            )

        discriminator, first = move(discriminator, discriminator_loss, number)

        def generator_loss(params: Params) -> chex.Array:
            fake = game.discriminator(discriminator.params, game.generator(params, noise))
            return jnp.mean(jax.nn.softplus(-fake))

        generator, second = move(generator, generator_loss, number)
        tested = jax.random.normal(keys[2], (_TESTED, width))
        points = game.generator(optimizer.evaluated(generator), tested)
        offset = jnp.linalg.norm(jnp.mean(points, axis=0) - game.mean)
        return (generator, discriminator), (game.error(points), offset, (first + second) / 2.0)

    players = tuple(
        Player(params, tx.init(params), params) for params in (generator, discriminator)
    )
    return jax.lax.scan(step, players, jnp.arange(steps))[1]


def game_rows(name: str, optimizer: GameOptimizer, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Plays every game; one row per game.

    Args:
      name: Name of the optimizer.
      optimizer: The optimizer of both players.
      seeds: Seeds of the runs.
    """
    rows = []
    for game in GAMES:
        outcome = play(game, optimizer, seeds)
        rows.append(
            {
                "game": game,
                "optimizer": name,
                "error": float(np.mean(outcome.errors)),
                "errors": outcome.errors,
                "offset": float(np.mean(outcome.offsets)),
                "braked": float(np.mean(outcome.backed_off)),
            }
        )
    return rows


def make_claims(rows: Sequence[Mapping[str, Any]]) -> list[results.Claim]:
    """The claims: no worse than without the loss, and than Adam, also at its average."""
    claims = []
    for game in dict.fromkeys(row["game"] for row in rows):
        errors = {row["optimizer"]: row["error"] for row in rows if row["game"] == game}
        for rival in (WITHOUT, *USUAL, *AVERAGED):
            short = rival.removeprefix(f"{NO_HORIZON}, ")
            short = short.replace("`", "").replace(", ", "_").replace(" ", "_").lower()
            claims.append(
                results.Claim(
                    f"robustness.{game.lower()}.{short}",
                    f"{game} game: error of {WITH}, relative to {rival}",
                    errors[WITH] / errors[rival],
                    "<= 1",
                )
            )
    return claims


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per game and optimizer."""
    columns = {
        "game": "game",
        "optimizer": "optimizer",
        "error": "error",
        "seeds": "of each seed",
        "offset": "offset of the mean",
        "share": "steps with a backoff",
    }
    shown = [
        row
        | {
            "seeds": ", ".join(f"{error:.2f}" for error in row["errors"]),
            "share": f"{100 * row['braked']:.1f} %"
            if row["optimizer"] in (WITH, LEARNING)
            else None,
        }
        for row in rows
    ]
    return results.markdown_table(shown, columns)
