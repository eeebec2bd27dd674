"""The package's layout: few top-level modules, imports in one direction, short signatures.

Sources are parsed, not imported. Only imports that run when a module is imported count: those
inside functions and under `TYPE_CHECKING` cannot make a cycle.
"""

import ast
import graphlib
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_PACKAGE = "alphaopt_jax"
_MAX_TOP_LEVEL_MODULES = 6
_MAX_ARGUMENTS = 7
_EXEMPT = {"alphaopt_jax._optimizer.transform:alphaopt"}  # Keywords of users, as in optax.adamw.


def _module_name(path):
    parts = path.relative_to(_ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _sources(package):
    """Syntax trees of a package's modules, by dotted name."""
    return {
        _module_name(path): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted((_ROOT / package).rglob("*.py"))
    }


_SOURCES = _sources(_PACKAGE)
_PACKAGES = {_module_name(path) for path in (_ROOT / _PACKAGE).rglob("__init__.py")}


def _import_time_nodes(node):
    """Every node that runs at import: not the bodies of functions, not `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _import_time_nodes(child)


def _imports(name, tree):
    """Modules of the package that the module `name` imports when it is imported."""
    found = set()
    for node in _import_time_nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: imports are absolute"
            for alias in node.names:  # `from package import name`: a module, or a name in one.
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in _SOURCES else node.module)
    return {module for module in found if module in _SOURCES and module != name}


def _folder(name):
    """The top-level folder or module of a dotted name: `alphaopt_jax.meta.ppo` gives `meta`."""
    return name.split(".")[1] if "." in name else name


def _cycle(graph):
    """One cycle of a graph, as text; empty if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return " -> ".join(reversed(error.args[1]))
    return ""


_GRAPH = {name: _imports(name, tree) for name, tree in _SOURCES.items()}


def test_few_modules_lie_beside_the_folders():
    modules = [path.name for path in (_ROOT / _PACKAGE).glob("*.py")]

    assert len(modules) <= _MAX_TOP_LEVEL_MODULES, modules


def test_modules_do_not_import_in_a_circle():
    assert not _cycle(_GRAPH)


def test_folders_import_in_one_direction():
    folders = {_folder(name): set() for name in _GRAPH if name != _PACKAGE}
    for name, imported in _GRAPH.items():
        if name != _PACKAGE:  # The package's `__init__` re-exports what users call.
            folders[_folder(name)] |= {_folder(each) for each in imported} - {_folder(name)}

    assert not _cycle(folders)


def test_a_cycle_is_found():
    assert _cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not _cycle({"a": {"b"}, "b": {"c"}, "c": set()})


def _num_arguments(function):
    """The number of arguments, without `self` and `cls`."""
    names = [
        argument.arg
        for argument in (
            *function.args.posonlyargs,
            *function.args.args,
            *function.args.kwonlyargs,
        )
    ]
    return len(names) - (names[:1] in (["self"], ["cls"]))


@pytest.mark.parametrize("package", [_PACKAGE, "benchmarks"])
def test_functions_have_few_arguments(package):
    long = [
        f"{name}:{node.lineno} {node.name}: {_num_arguments(node)}"
        for name, tree in _sources(package).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and _num_arguments(node) > _MAX_ARGUMENTS
        and f"{name}:{node.name}" not in _EXEMPT
    ]

    assert not long, "\n".join(long)
