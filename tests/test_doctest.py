"""Every example in the package's documentation gives what it says."""

import doctest
import importlib
import pkgutil

import pytest

import alphaopt_jax


def _modules():
    yield alphaopt_jax.__name__
    for module in pkgutil.walk_packages(alphaopt_jax.__path__, f"{alphaopt_jax.__name__}."):
        yield module.name


@pytest.mark.parametrize("name", list(_modules()))
def test_examples_give_what_they_say(name):
    failures, _ = doctest.testmod(importlib.import_module(name))

    assert not failures
