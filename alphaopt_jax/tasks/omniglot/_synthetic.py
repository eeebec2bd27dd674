"""Synthetic characters, for machines without Omniglot.

An alphabet has a style: the number of strokes per character, and their curvature, length and
orientation. A character is a set of strokes, each a quadratic Bézier curve. A drawing is a random
distortion of its character: an affine map, a small offset of every control point, and a pen width.
"""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

_SIZE = 28
_MAX_STROKES = 4
_POINTS = 14  # Points along a stroke.


def draw_characters(seed: int, alphabets: int, *, characters: int, drawers: int) -> np.ndarray:
    """Draws the characters of several alphabets.

    Args:
      seed: Random seed.
      alphabets: Number of alphabets.
      characters: Number of characters per alphabet.
      drawers: Number of drawings per character.

    Returns:
      `bool[alphabets * characters, drawers, 28, 28]`, ink True, sorted by alphabet.

    Example:
      >>> drawings = draw_characters(0, 2, characters=3, drawers=4)
      >>> drawings.shape
      (6, 4, 28, 28)
    """
    keys = jax.random.split(jax.random.key(seed), alphabets)
    drawings = _draw_alphabets(keys, characters, drawers)
    return np.asarray(drawings).reshape(-1, drawers, _SIZE, _SIZE)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _draw_alphabets(keys: chex.PRNGKey, characters: int, drawers: int) -> chex.Array:
    def draw_alphabet(key: chex.PRNGKey) -> chex.Array:
        style_key, key = jax.random.split(key)
        style = jax.random.uniform(style_key, (4,))

        def draw_character(key: chex.PRNGKey) -> chex.Array:
            strokes_key, key = jax.random.split(key)
            strokes, is_used = _strokes(strokes_key, style)
            keys = jax.random.split(key, drawers)
            return jax.vmap(lambda key: _drawing(key, strokes, is_used))(keys)

        return jax.vmap(draw_character)(jax.random.split(key, characters))

    return jax.lax.map(draw_alphabet, keys)


def _strokes(key: chex.PRNGKey, style: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Returns control points, `float32[S, 3, 2]` in [-1, 1], and which strokes are used, `[S]`."""
    count_key, place_key, turn_key, length_key, bend_key = jax.random.split(key, 5)
    shape = (_MAX_STROKES,)
    most = 3.0 + 1.99 * style[0]
    count = jnp.floor(jax.random.uniform(count_key, minval=2.0, maxval=most))
    middle = jax.random.uniform(place_key, (*shape, 2), minval=-0.45, maxval=0.45)
    # In some alphabets most strokes are vertical or horizontal, in others they have any direction.
    turn = jax.random.uniform(turn_key, shape, maxval=jnp.pi)
    square = jnp.round(turn / (jnp.pi / 2)) * (jnp.pi / 2)
    turn = square + (turn - square) * style[1]
    length = jax.random.uniform(length_key, shape, minval=0.35, maxval=0.5 + 0.4 * style[2])
    bend = (0.2 + 1.3 * style[3]) * jax.random.normal(bend_key, shape)
    along = jnp.stack([jnp.cos(turn), jnp.sin(turn)], axis=-1) * length[:, None]
    across = along[:, ::-1] * jnp.array([1.0, -1.0]) * bend[:, None]
    strokes = jnp.stack([middle - along, middle + across, middle + along], axis=1)
    return strokes, jnp.arange(_MAX_STROKES) < count


def _drawing(key: chex.PRNGKey, strokes: chex.Array, is_used: chex.Array) -> chex.Array:
    """Returns one drawing of a character, `bool[28, 28]`."""
    offset_key, linear_key, shift_key, pen_key = jax.random.split(key, 4)
    offset = strokes + 0.07 * jax.random.normal(offset_key, strokes.shape)
    linear = jnp.eye(2) + 0.12 * jax.random.normal(linear_key, (2, 2))
    shift = 0.08 * jax.random.normal(shift_key, (2,))
    control = offset @ linear.T + shift
    pen = jax.random.uniform(pen_key, minval=0.05, maxval=0.08)

    time = jnp.linspace(0.0, 1.0, _POINTS)
    weights = jnp.stack([(1.0 - time) ** 2, 2.0 * time * (1.0 - time), time**2], axis=-1)
    points = jnp.einsum("pc,scx->spx", weights, control)
    points = jnp.where(is_used[:, None, None], points, 9.0).reshape(-1, 2)
    places = (jnp.arange(_SIZE) + 0.5) / _SIZE * 2.0 - 1.0
    rows = jnp.square(places[:, None] - points[:, 1])
    columns = jnp.square(places[:, None] - points[:, 0])
    nearest = jnp.min(rows[:, None] + columns[None], axis=-1)
    return nearest < jnp.square(pen)
