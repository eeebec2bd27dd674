"""Every example in a docstring of the package gives the output that it shows."""

import doctest
import importlib
import inspect
from pathlib import Path
import pkgutil
import re

import pytest

import alphaopt_jax

# These depend on library versions no more than modules that are tested on both Pythons.
_SLOW = tuple(f"alphaopt_jax.{name}." for name in ("baselines", "meta", "tasks"))


def _modules():
    yield alphaopt_jax.__name__
    for module in pkgutil.walk_packages(alphaopt_jax.__path__, f"{alphaopt_jax.__name__}."):
        slow = [pytest.mark.slow] if module.name.startswith(_SLOW) else []
        yield pytest.param(module.name, marks=slow)


class _Finder(doctest.DocTestFinder):
    """Also finds the examples of functions that shape checking has wrapped."""

    def _from_module(self, module, object):
        return super()._from_module(module, inspect.unwrap(object))


@pytest.mark.parametrize("name", list(_modules()))
def test_examples_give_what_they_say(name, monkeypatch):
    monkeypatch.setattr(doctest, "DocTestFinder", _Finder)
    module = importlib.import_module(name)

    failures, attempted = doctest.testmod(module)

    assert not failures
    assert attempted == len(re.findall(r"^ *>>> ", Path(module.__file__).read_text(), re.MULTILINE))
