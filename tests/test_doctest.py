"""Every example in the package's documentation gives what it says."""

import doctest
import importlib
import inspect
from pathlib import Path
import pkgutil
import re

import pytest

import alphaopt_jax

# Examples that train something compile for several seconds.
_SLOW = {
    f"alphaopt_jax.{name}"
    for name in (
        "baselines.initializations",
        "baselines.li_malik.guided_2016",
        "baselines.li_malik.policies",
        "baselines.li_malik.transform",
        "meta.testing",
        "meta.training",
        "tasks.l2l",
        "tasks.li_malik_2016",
        "tasks.omniglot_episodes",
    )
}


def _modules():
    yield alphaopt_jax.__name__
    for module in pkgutil.walk_packages(alphaopt_jax.__path__, f"{alphaopt_jax.__name__}."):
        slow = [pytest.mark.slow] if module.name in _SLOW else []
        yield pytest.param(module.name, marks=slow)


def test_slow_modules_exist():
    for name in _SLOW:
        importlib.import_module(name)


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
