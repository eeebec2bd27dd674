"""Signatures as written in the source, with fully qualified names, so that they can be linked.

Sphinx evaluates annotations, which turns `chex.Array` into a union of six types and loses the
annotations of named tuples. Here annotations stay text, and only their names are expanded:
`np.ndarray` to `numpy.ndarray`, `task_lib.Task` to the full name of the class.
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
    """An annotation that is shown verbatim."""

    def __init__(self, text: str):
        self._text = text

    def __repr__(self) -> str:
        return self._text


class _Spelling(ast.NodeTransformer):
    """Expands each dotted name; `~` in front makes Sphinx show only its last part."""

    def __init__(self, module: ModuleType, aliases: Mapping[int, str]):
        self._module = module
        self._aliases = aliases

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """`Annotated[T, ...]` is shown as `T`."""
        if ast.unparse(node.value).rpartition(".")[2] == "Annotated":
            assert isinstance(node.slice, ast.Tuple)
            return self.visit(node.slice.elts[0])
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Expands a simple name."""
        return self._spelled(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Expands a dotted name."""
        return self._spelled(ast.unparse(node))

    def _spelled(self, dotted: str) -> ast.AST:
        head, *rest = dotted.split(".")
        thing = vars(self._module).get(head)
        if inspect.ismodule(thing):
            full = [thing.__name__, *rest]
        elif id(thing) in self._aliases:
            full = [self._aliases[id(thing)], *rest]
        elif inspect.isclass(thing) or getattr(thing, "__module__", "").startswith("collections"):
            # Classes of compiled modules may repeat the module in their name, as `jax.Array` does.
            name = re.sub(r"^.*\._\w+\.", "", getattr(thing, "__qualname__", head))
            full = [_public_module(thing), name, *rest]
        else:  # Builtins and `typing`.
            full = [dotted]
        found: ast.expr = ast.parse(".".join(full), mode="eval").body
        if len(full) > 1 or "." in full[0]:
            found = ast.UnaryOp(ast.Invert(), found)
        return found


def _public_module(thing: Any) -> str:
    """The module that users import `thing` from; the definition may be in a private module."""
    public = _exporter(thing.__module__, thing.__name__)
    module = importlib.import_module(public)
    return public if getattr(module, thing.__name__, None) is thing else thing.__module__


def _exporter(home: str, name: str) -> str:
    """The public package around a private module, if it exports `name`; else the module itself."""
    public = home.partition("._")[0]
    exported = getattr(importlib.import_module(public), "__all__", ())
    return home if public.startswith(_OWN) and name not in exported else public


def spell_out(module_names: Iterable[str]) -> None:
    """Replaces the annotations of everything defined in these modules."""
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
    """The module under which `name`, which `module` may only import, is documented."""
    for each in modules:
        if f"\n{name} = " in inspect.getsource(each) and vars(each).get(name) is vars(module)[name]:
            return _exporter(each.__name__, name)
    return module.__name__


def _spell(thing: Any, spelling: _Spelling, fields: Mapping[str, Any]) -> None:
    """Replaces annotations; those of Flax constructors, which are evaluated, by the fields' own."""
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
    """Drops `parent` and `name` of Flax modules, and defaults that are not valid Python."""
    del app, what, name, options
    if not signature:
        return None
    if inspect.isclass(thing) and issubclass(thing, nn.Module) and "parent:" in signature:
        signature = f"{signature.partition('parent:')[0].rstrip(', *')})"
    return re.sub(r"= <[^>]*>", "= ...", signature), returned
