"""Writes a reference page for every public module; a missing public name fails the build.

A module is public if no part of its dotted name begins with an underscore. Its public names are
those in `__all__` if it has one, else every name without a leading underscore that it defines.
Names that `alphaopt_jax` exports from private modules are documented on the page of `alphaopt_jax`.
Pages are made from the source and checked against the imported modules.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
import importlib
import inspect
from pathlib import Path
import pkgutil
import re
from types import ModuleType
import typing
from typing import TYPE_CHECKING, Any

import alphaopt_annotations

import alphaopt_jax

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PACKAGE = alphaopt_jax.__name__
_GROUPS = {
    "The optimizer": "",
    "Pretrained agents": "pretrained",
    "Meta-training": "meta",
    "Tasks": "tasks",
    "Baselines": "baselines",
    "Plots": "plotting",
}
_CLASS_OPTIONS = ":members:\n:special-members: __call__\n"


def public_modules() -> list[str]:
    """Dotted names of the public modules, the package itself first."""
    return [name for name in _modules() if not any(part[0] == "_" for part in name.split("."))]


def _modules() -> list[str]:
    """Dotted names of all modules, the package itself first."""
    found = pkgutil.walk_packages(alphaopt_jax.__path__, f"{PACKAGE}.")
    return [PACKAGE, *(module.name for module in found)]


def public_names(module: ModuleType) -> Iterator[tuple[str, set[str]]]:
    """Every public name of a module, with the dotted names under which it may be documented."""
    here = f"{module.__name__}."
    for name in getattr(module, "__all__", None) or sorted(vars(module)):
        thing = getattr(module, name)
        if name.startswith("_") or inspect.ismodule(thing):
            continue
        home = getattr(thing, "__module__", None)
        origin = f"{home}.{getattr(thing, '__qualname__', name)}"
        if hasattr(module, "__all__"):
            yield name, {here + name, origin, _place(module.__name__, name)}
        elif home == module.__name__ or _assigns(module, name):
            yield name, {here + name}


def _assigns(module: ModuleType, name: str) -> bool:
    """True if the module's source assigns `name`; constants do not record their module."""
    return re.search(rf"^(\w+, )*{name}\b.*=", inspect.getsource(module), re.MULTILINE) is not None


def _definitions(path: Path) -> Iterator[tuple[str, str]]:
    """Public top-level names of a file, in source order, each with its kind."""
    for node in ast.parse(path.read_text()).body:
        names: list[tuple[str, str]] = []
        if isinstance(node, ast.ClassDef):
            names = [(node.name, "class")]
        elif isinstance(node, ast.FunctionDef):
            names = [(node.name, "function")]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts = [part for target in targets for part in ast.walk(target)]
            names = [(part.id, "data") for part in parts if isinstance(part, ast.Name)]
        yield from ((name, kind) for name, kind in names if not name.startswith("_"))


def page(module_name: str) -> str:
    """The reference page of a module, in Markdown."""
    module = importlib.import_module(module_name)
    lines = [
        f"# `{module_name}`",
        "```{eval-rst}",
        f".. automodule:: {module_name}",
        "   :no-members:",
        "",
        f".. currentmodule:: {module_name}",
        "",
    ]
    elsewhere = []
    for name, kind in _definitions(Path(str(module.__file__))):
        if kind == "class" and _in_package(getattr(module, name)):  # One class, one place.
            elsewhere.append(f"{PACKAGE}.{name}")
        elif typing.get_origin(getattr(module, name)) is not None:
            lines += _alias(module_name, name, Path(str(module.__file__)))
        else:
            lines += _directive(module_name, name, kind)
    documented = {name for name, _ in _definitions(Path(str(module.__file__)))}
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        place = _place(module_name, name)
        if inspect.ismodule(thing) or name in documented:
            continue
        if place != f"{module_name}.{name}":
            elsewhere.append(place)
        elif typing.get_origin(thing) is not None:
            lines += _alias(module_name, name, _source(module, name))
        else:
            lines += _directive(module_name, name, _kind(thing))
    lines += [f"* :py:obj:`{place}`" for place in elsewhere]
    return "\n".join([*lines, "```", ""])


def _kind(thing: Any) -> str:
    """The kind of autodoc directive that documents `thing`."""
    if inspect.isclass(thing):
        return "class"
    return "function" if inspect.isroutine(inspect.unwrap(thing)) else "data"


def _source(module: ModuleType, name: str) -> Path:
    """The file of the module from which `module` imports `name`."""
    for node in ast.parse(Path(str(module.__file__)).read_text()).body:
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            return Path(str(importlib.import_module(str(node.module)).__file__))
    return Path(str(module.__file__))


def _directive(module_name: str, name: str, kind: str) -> list[str]:
    options = [f"   {line}" for line in _CLASS_OPTIONS.splitlines()] if kind == "class" else []
    return [f".. auto{kind}:: {module_name}.{name}", *options, ""]


def _alias(module_name: str, name: str, path: Path) -> list[str]:
    """A type alias as written in the source; Sphinx would show the whole type."""
    body = ast.parse(path.read_text()).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            lines = [f".. py:data:: {name}", f"   :module: {module_name}", ""]
            lines += [f"   Alias of ``{ast.unparse(node.value)}``.", ""]
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                text = inspect.cleandoc(str(following.value.value)).splitlines()
                lines += [f"   {_to_restructured_text(line)}".rstrip() for line in text]
            return [*lines, ""]
    raise LookupError(f"{path} does not assign {name}.")


def _place(module_name: str, name: str) -> str:
    """The dotted name under which an export of a module is documented.

    The package itself comes first, then the public module that defines it, then the package around
    the private module that defines it.
    """
    thing = getattr(importlib.import_module(module_name), name)
    if _in_package(thing):
        return f"{PACKAGE}.{thing.__name__}"
    home = getattr(thing, "__module__", None) or ""
    public = home.partition("._")[0]
    if not public.startswith(PACKAGE):  # Constants and aliases of types do not name their module.
        below = (each for each in public_modules() if each.startswith(f"{module_name}."))
        homes = (each for each in below if _assigns(importlib.import_module(each), name))
        return f"{next(homes, module_name)}.{name}"
    if public == home or getattr(importlib.import_module(public), name, None) is thing:
        return f"{public}.{name}"
    return f"{module_name}.{name}"


def _in_package(thing: Any) -> bool:
    """True if `alphaopt_jax` itself exports `thing` under its own name."""
    return getattr(alphaopt_jax, getattr(thing, "__name__", ""), None) is thing


def pages() -> dict[str, str]:
    """Maps the path of every reference page, `index.md` included, to its text."""
    modules = public_modules()
    texts = {f"{name}.md": page(name) for name in modules}
    lines = [
        "# Reference",
        "",
        f"Generated from the docstrings. [`{PACKAGE}`]({PACKAGE}.md) has what most users need.",
        "The other public modules are for building on parts of the package. Modules whose name",
        "begins with an underscore are private: they are not listed here and may change.",
    ]
    for title, folder in _GROUPS.items():
        members = [name for name in modules if _folder(name) == folder]
        lines += ["", "```{toctree}", ":maxdepth: 1", f":caption: {title}", "", *members, "```"]
    texts["index.md"] = "\n".join([*lines, ""])
    return texts


def _folder(module_name: str) -> str:
    """The subpackage that a module belongs to."""
    parts = module_name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in _GROUPS.values() else ""


def missing_names(documented: set[str]) -> list[str]:
    """Public names that are not documented."""
    missing = []
    for module_name in public_modules():
        module = importlib.import_module(module_name)
        for name, places in public_names(module):
            if not places & documented:
                missing.append(f"{module_name}.{name}")
    return missing


def _write_pages(app: Sphinx) -> None:
    fill(Path(app.srcdir) / "reference", dict(pages()))


def fill(folder: Path, contents: dict[str, str | Path]) -> None:
    """Fills a folder with these texts and copies of files, and removes every other file.

    Unchanged files are not written, so that a second build only reads the pages that changed.
    """
    wanted = {
        folder / name: what.read_bytes() if isinstance(what, Path) else what.encode()
        for name, what in contents.items()
    }
    for path in [path for path in folder.rglob("*") if path.is_file() and path not in wanted]:
        path.unlink()
    for path, content in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)


def _check(app: Sphinx, env: Any) -> None:
    from sphinx.errors import ExtensionError

    documented = set(env.domains.python_domain.objects)
    if missing := missing_names(documented):
        raise ExtensionError(f"Public names without documentation: {', '.join(missing)}.")


def _skip_fields(
    app: Sphinx, kind: str, name: str, thing: Any, skip: bool, options: Any
) -> bool | None:
    """Skips fields, which their class describes; methods and properties remain."""
    del app, options
    own = getattr(getattr(thing, "fget", thing), "__name__", None) == name
    return True if kind == "class" and not own else (skip or None)


_CODE = re.compile(r"`+[^`]+`+")
_MAY_TOUCH = ("", *" \"'([{</:-")  # Characters allowed right before inline code.


def _from_markdown(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Converts inline code in single backticks, and escapes the bars of norms."""
    del app, name, options
    if what == "data" and "\n".join(lines).strip() == inspect.cleandoc(type(thing).__doc__ or ""):
        lines.clear()  # A constant without a docstring inherits that of its type.
    in_example = False
    for index, line in enumerate(lines):
        in_example = line.lstrip().startswith(">>>") or (in_example and bool(line.strip()))
        if not in_example:
            lines[index] = _to_restructured_text(line)


def _to_restructured_text(line: str) -> str:
    """Puts code between double backticks, separated from adjacent text, and escapes bars."""
    parts, end = [], 0
    for match in _CODE.finditer(line):
        before = line[end : match.start()].replace("|", r"\|")
        parts.append(before if before[-1:] in _MAY_TOUCH else f"{before}\\ ")
        end = match.end()
        parts.append(f"``{match[0].strip('`')}``")
        if line[end : end + 1].isalnum():
            parts.append("\\ ")
    return "".join([*parts, line[end:].replace("|", r"\|")])


class _Unsplit:
    """Keeps napoleon from reading the first words of a constant's docstring as its type."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}

    def keep(
        self, app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
    ) -> None:
        """Stores the lines before napoleon changes them."""
        del app, thing, options
        if what in ("data", "property"):
            self._lines[name] = list(lines)

    def restore(
        self, app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
    ) -> None:
        """Restores the lines after napoleon."""
        del app, thing, options
        if what in ("data", "property"):
            lines[:] = self._lines.pop(name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the extension with Sphinx."""
    from sphinx.domains.python import PyObject

    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    unsplit = _Unsplit()
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("builder-inited", _write_pages)
    app.connect("builder-inited", lambda app: alphaopt_annotations.spell_out(_modules()))
    app.connect("autodoc-process-signature", alphaopt_annotations.readable)
    app.connect("autodoc-skip-member", _skip_fields)
    app.connect("autodoc-process-docstring", _from_markdown, priority=300)
    app.connect("autodoc-process-docstring", unsplit.keep, priority=400)
    app.connect("autodoc-process-docstring", unsplit.restore, priority=600)
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
