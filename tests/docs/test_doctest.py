"""Every example in the package's documentation gives what it says."""

import doctest
import importlib
import inspect
from pathlib import Path
import pkgutil
import re

import pytest

import alphaopt_jax

# Nothing in these depends on the versions of libraries more than what is tested anyway.
_SLOW = tuple(f"alphaopt_jax.{name}." for name in ("baselines", "meta", "tasks"))


def _modules():
    yield alphaopt_jax.__name__
    for module in pkgutil.walk_packages(alphaopt_jax.__path__, f"{alphaopt_jax.__name__}."):
        slow = [pytest.mark.slow] if module.name.startswith(_SLOW) else []
        yield pytest.param(module.name, marks=slow)


class _Finder(doctest.DocTestFinder):
    """Finds the examples of functions whose shapes are checked: those are wrapped elsewhere."""

    def _from_module(self, module, object):
        return super()._from_module(module, inspect.unwrap(object))


@pytest.mark.parametrize("name", list(_modules()))
def test_examples_give_what_they_say(name, monkeypatch):
    monkeypatch.setattr(doctest, "DocTestFinder", _Finder)
    module = importlib.import_module(name)

    failures, attempted = doctest.testmod(module)

    assert not failures
    assert attempted == len(re.findall(r"^ *>>> ", Path(module.__file__).read_text(), re.MULTILINE))
