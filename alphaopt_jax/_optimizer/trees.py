"""Correspondence of the leaves of two pytrees in different containers.

Gradients, parameters and the optimizer's state may come in different containers: a dict and a
`FrozenDict`, a list and a tuple. Parameters may have more leaves than the gradients: a whole module
holds functions and integers too.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp


def arrange(tree: chex.ArrayTree, like: chex.ArrayTree) -> chex.ArrayTree:
    """The leaves of `tree` that are also in `like`, in the structure of `like`.

    Leaves correspond by the names or numbers on their paths, or else by their order, if there are
    as many.

    Args:
      tree: A pytree, of any leaves.
      like: The pytree with the target structure.

    Returns:
      A pytree structured like `like`, or `tree` itself where the leaves do not correspond.

    Example:
      >>> arrange({"a": 1.0, "b": None, "f": len, "c": 2.0}, {"a": 0.0, "c": 0.0})
      {'a': 1.0, 'c': 2.0}
      >>> arrange((1.0, 2.0), [0.0, 0.0])
      [1.0, 2.0]
    """
    named = by_name(tree, like)
    if named is not None:
        return named
    if count(tree) != count(like):
        return tree
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(tree))


def rearrange(tree: chex.ArrayTree, like: chex.ArrayTree) -> chex.ArrayTree:
    """As `arrange`, but `tree` itself where it does not have as many leaves as `like`.

    Example:
      >>> rearrange({"a": 1.0, "b": 2.0}, {"a": 0.0})
      {'a': 1.0, 'b': 2.0}
    """
    return arrange(tree, like) if count(tree) == count(like) else tree


def by_name(tree: chex.ArrayTree, like: chex.ArrayTree) -> chex.ArrayTree | None:
    """As `arrange`, but by the names alone; None where `tree` lacks one.

    Example:
      >>> by_name({"a": 1.0}, {"b": 0.0}) is None
      True
    """
    if is_like(tree, like):
        return tree
    found, wanted = _named(tree), _named(like)
    if (len(found), len(wanted)) != (count(tree), count(like)):
        return None  # Two leaves have one name.
    if not found.keys() >= wanted.keys():
        return None
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in wanted])


def restrict(tree: chex.ArrayTree, like: chex.ArrayTree) -> chex.ArrayTree:
    """`tree` with None in place of every leaf that `like` does not have, by name.

    Args:
      tree: A pytree, of any leaves.
      like: A pytree of a part of its leaves.

    Returns:
      A pytree in the containers of `tree`, or `tree` itself where names do not correspond.

    Example:
      >>> restrict({"a": 1.0, "f": len}, {"a": 0.0, "f": None})
      {'a': 1.0, 'f': None}
    """
    if is_like(tree, like):
        return tree
    wanted = _named(like).keys()
    if not _named(tree).keys() >= wanted:
        return tree
    return jax.tree.map_with_path(lambda path, leaf: leaf if _name(path) in wanted else None, tree)


def overlay(tree: chex.ArrayTree, part: chex.ArrayTree) -> chex.ArrayTree:
    """`tree` with the leaves of `part` in place of its own.

    Args:
      tree: A pytree, of any leaves.
      part: A pytree of some or all of its leaves, which correspond as in `arrange`.

    Returns:
      A pytree in the containers of `tree`.

    Example:
      >>> overlay({"a": 1.0, "f": len}, {"a": 2.0})
      {'a': 2.0, 'f': <built-in function len>}
    """
    if count(tree) == count(part):
        return arrange(part, tree)
    named = _named(part)
    return jax.tree.map_with_path(lambda path, leaf: named.get(_name(path), leaf), tree)


def is_like(tree: chex.ArrayTree, like: chex.ArrayTree) -> bool:
    """True if two pytrees have one structure."""
    structures: list[Any] = [jax.tree.structure(each) for each in (tree, like)]
    return structures[0] == structures[1]


def count(tree: chex.ArrayTree) -> int:
    """The number of leaves."""
    return len(jax.tree.leaves(tree))


def dtype_of(leaf: Any) -> str:
    """The type of a leaf, for messages: `float32`, `int32`, `function`."""
    if hasattr(leaf, "dtype"):
        return str(leaf.dtype)
    if isinstance(leaf, (int, float, complex)):
        return str(jnp.asarray(leaf).dtype)
    return type(leaf).__name__


def is_inexact(leaf: Any) -> bool:
    """True for an array or a number of a floating-point or complex type."""
    return jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jnp.inexact)


def _named(tree: chex.ArrayTree) -> dict[tuple[str, ...], Any]:
    return {_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _name(path: tuple[Any, ...]) -> tuple[str, ...]:
    """A path without the kinds of its containers, and without the variables of Flax NNX."""
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return tuple(jax.tree_util.keystr((entry,), simple=True) for entry in path)
