"""Complex parameters as pairs of real ones, each with a rate of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp


class ComplexParts(NamedTuple):
    """Real and imaginary part of a complex leaf."""

    real: chex.Array
    imag: chex.Array


def split(tree: chex.ArrayTree) -> chex.ArrayTree:
    """Replaces complex leaves by `ComplexParts` and Python's numbers by arrays."""

    def split_leaf(leaf: Any) -> Any:
        if isinstance(leaf, (int, float, complex)) and not hasattr(leaf, "dtype"):
            leaf = jnp.asarray(leaf)
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            return leaf
        if isinstance(leaf, jax.ShapeDtypeStruct):
            part = jax.ShapeDtypeStruct(leaf.shape, jnp.finfo(leaf.dtype).dtype)
            return ComplexParts(part, part)
        return ComplexParts(jnp.real(leaf), jnp.imag(leaf))

    return jax.tree.map(split_leaf, tree)


def merge(tree: chex.ArrayTree) -> chex.ArrayTree:
    """Undoes `split`."""

    def is_parts(node: object) -> bool:
        return isinstance(node, ComplexParts)

    def merge_node(node: chex.Array | ComplexParts) -> chex.Array:
        return jax.lax.complex(node.real, node.imag) if is_parts(node) else node

    return jax.tree.map(merge_node, tree, is_leaf=is_parts)
