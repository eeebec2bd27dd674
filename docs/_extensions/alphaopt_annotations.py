"""Signatures as the source spells them, with every name in full, so that it can be linked.

Sphinx evaluates annotations. That turns `chex.Array` into a union of six types, and it cannot find
what named tuples were annotated with. Here annotations stay text; only `np.ndarray` becomes
`numpy.ndarray`, and `agent_lib.Agent` the full name of the class.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
import importlib
import inspect
import re
from types import ModuleType
import typing
from typing import Any

from flax import linen as nn

_OWN = "alphaopt_jax"


class _Text:
    """An annotation that shows as it is."""

    def __init__(self, text: str):
        self._text = text

    def __repr__(self) -> str:
        return self._text


class _Spelling(ast.NodeTransformer):
    """Replaces each dotted name by its full one, of which only the last part is to be shown."""

    def __init__(self, module: ModuleType, aliases: Mapping[int, str]):
        self._module = module
        self._aliases = aliases

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """Annotated types count as what they annotate."""
        if ast.unparse(node.value).rpartition(".")[2] == "Annotated":
            assert isinstance(node.slice, ast.Tuple)
            return self.visit(node.slice.elts[0])
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """A name alone."""
        return self._spelled(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """A dotted name."""
        return self._spelled(ast.unparse(node))

    def _spelled(self, dotted: str) -> ast.AST:
        head, *rest = dotted.split(".")
        thing = vars(self._module).get(head)
        if inspect.ismodule(thing):
            full = [thing.__name__, *rest]
        elif id(thing) in self._aliases:
            full = [self._aliases[id(thing)], *rest]
        elif inspect.isclass(thing) or getattr(thing, "__module__", "").startswith("collections"):
            # What is compiled may have its module in its name too, as `jax.Array` has.
            name = re.sub(r"^.*\._\w+\.", "", getattr(thing, "__qualname__", head))
            full = [_public_module(thing), name, *rest]
        else:  # What Python or `typing` has.
            full = [dotted]
        found: ast.expr = ast.parse(".".join(full), mode="eval").body
        if len(full) > 1 or "." in full[0]:
            found = ast.UnaryOp(ast.Invert(), found)
        return found


def _public_module(thing: Any) -> str:
    """Where users import something from, which may be defined in a private module."""
    public = thing.__module__.partition("._")[0]
    module = importlib.import_module(public)
    return public if getattr(module, thing.__name__, None) is thing else thing.__module__


def spell_out(module_names: Iterable[str]) -> None:
    """Replaces the annotations of everything that these modules define."""
    modules = [importlib.import_module(name) for name in module_names]
    aliases = {}
    for module in modules:
        for name, thing in vars(module).items():
            named = getattr(thing, "__name__", None) == name or inspect.ismodule(thing)
            is_type = typing.get_origin(thing) is not None
            if is_type and not named and not name.startswith("_"):
                aliases.setdefault(id(thing), f"{_home(module, name, modules)}.{name}")
    for module in modules:
        spelling = _Spelling(module, aliases)
        for thing in list(vars(module).values()):
            if getattr(thing, "__module__", None) != module.__name__:
                continue
            if inspect.isclass(thing):
                fields = vars(thing).get("__annotations__", {})
                for name, member in vars(thing).items():
                    _spell(member, spelling, fields if name == "__init__" else {})
            else:
                _spell(thing, spelling, {})


def _home(module: ModuleType, name: str, modules: Iterable[ModuleType]) -> str:
    """The module that assigns what this one may have imported."""
    for each in modules:
        if f"\n{name} = " in inspect.getsource(each) and vars(each).get(name) is vars(module)[name]:
            return each.__name__
    return module.__name__


def _spell(thing: Any, spelling: _Spelling, fields: Mapping[str, Any]) -> None:
    """Flax evaluates the annotations of constructors; those of fields are still there."""
    function = _function(thing)
    annotations = getattr(function, "__annotations__", None)
    if not annotations:
        return
    for name, annotation in annotations.items():
        annotation = fields.get(name, annotation)
        text = getattr(annotation, "__forward_arg__", annotation)
        if isinstance(text, str):
            annotations[name] = _Text(
                ast.unparse(spelling.visit(ast.parse(text, mode="eval").body))
            )


def _function(thing: Any) -> Callable[..., Any] | None:
    if isinstance(thing, property):
        return thing.fget
    if isinstance(thing, staticmethod | classmethod):
        return thing.__func__
    return inspect.unwrap(thing) if callable(thing) and not inspect.isclass(thing) else None


def readable(
    app: Any, what: str, name: str, thing: Any, options: Any, signature: str, returned: str
) -> tuple[str, str] | None:
    """Leaves out the two arguments that every Flax module has, and defaults that are no Python."""
    del app, what, name, options
    if not signature:
        return None
    if inspect.isclass(thing) and issubclass(thing, nn.Module) and "parent:" in signature:
        signature = f"{signature.partition('parent:')[0].rstrip(', *')})"
    return re.sub(r"= <[^>]*>", "= ...", signature), returned
