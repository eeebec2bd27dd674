"""optax's own test suites, run on AlphaOpt; none of their tests is skipped."""

import functools
import importlib.util
import inspect
import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import pytest

import alphaopt_jax


def _entry(*, gets_value, **fixed):
    """`alphaopt` as an entry of a suite's list; asserts that the suite passes `value` or not."""
    fixed = {"agent": None} | fixed

    @functools.wraps(alphaopt_jax.alphaopt)
    def entry(*args, **kwargs):
        tx = alphaopt_jax.alphaopt(*args, **fixed, **kwargs)

        def update(updates, state, params=None, *, value=None, **extra):
            assert (value is not None) == gets_value
            return tx.update(updates, state, params, value=value, **extra)

        return optax.GradientTransformationExtraArgs(tx.init, update)

    # The suites read the evaluated annotation to decide whether to test schedules.
    signature = inspect.signature(entry, eval_str=True)
    parameters = [value for name, value in signature.parameters.items() if name not in fixed]
    entry.__signature__ = signature.replace(parameters=parameters)
    return entry


_ENTRIES = types.SimpleNamespace(
    learning=_entry(gets_value=False),
    learning_given_value=_entry(gets_value=True),
    frozen=_entry(gets_value=False, learn=False),
)
# The suites pass `value` only to optimizers that they know by name.
_GET_VALUE = "opt_name in ['learning_given_value'"


def _variants(*names, **more):
    return tuple({"opt_name": name, "opt_kwargs": {}} | more for name in names)


# Compilation dominates the time, so each suite tests two of the variants.
_FOR_CONTRIB = _variants("learning", "learning_given_value", wrapper_name=None, wrapper_kwargs=None)
_FOR_ALIAS = _variants("learning_given_value", "frozen")


def _suite(module_name, class_name, *, exclude=(), rewrite=None, **names):
    """Loads one of optax's suites, with `names` replaced before its test class is created.

    The class generates its parameterized tests on creation, so they cannot be replaced later.
    """
    spec = importlib.util.find_spec(module_name)
    with open(spec.origin, encoding="utf-8") as file:
        source = file.read()
    for old, new in (rewrite or {}).items():
        assert old in source, f"{module_name} has changed: {old!r} is not in it."
        source = source.replace(old, new)
    head, class_line, tail = source.partition(f"\nclass {class_name}(")
    assert class_line, f"{module_name} has changed: {class_name} is not in it."
    module = types.ModuleType(__name__)
    environment = dict(os.environ)
    try:
        exec(compile(head, spec.origin, "exec"), vars(module))
        assert set(names) <= set(vars(module)), f"{module_name} has changed: it lacks {names}."
        vars(module).update(names)
        padding = "\n" * head.count("\n")  # Keeps line numbers in tracebacks.
        exec(compile(padding + class_line + tail, spec.origin, "exec"), vars(module))
    finally:  # The sharding suite sets XLA_FLAGS for the whole process.
        os.environ.clear()
        os.environ.update(environment)
    suite = getattr(module, class_name)
    for name in [name for name in dir(suite) if name.startswith(exclude or ("no such",))]:
        delattr(suite, name)
    suite.skipTest = lambda test, reason: test.fail(f"would be skipped: {reason}")
    return suite


ContribTest = _suite(
    "optax.contrib._common_test",
    "ContribTest",
    rewrite={
        "opt_name in ['momo', 'momo_adam'": _GET_VALUE,
        "opt_name in ['polyak_sgd', 'momo', 'momo_adam'": _GET_VALUE,
    },
    contrib=_ENTRIES,
    _MAIN_OPTIMIZERS_UNDER_TEST=_FOR_CONTRIB,
    _ALL_OPTIMIZERS_UNDER_TEST=_FOR_CONTRIB,
)

AliasTest = _suite(
    "optax._src.alias_test",
    "AliasTest",
    exclude="test_explicit_dtype",  # Its optimizers and their arguments are fixed.
    rewrite={
        "opt_name == 'polyak_sgd'": f"{_GET_VALUE}]",
        "opt_name in ['polyak_sgd']": f"{_GET_VALUE}]",
    },
    _OPTIMIZERS_UNDER_TEST=_FOR_ALIAS,
    _get_opt=lambda test, opt_name: getattr(_ENTRIES, opt_name),
)
AliasTest = pytest.mark.slow(AliasTest)

ShardingTest = _suite(
    "optax._src.sharding_test",
    "ShardingTest",
    exclude="test_microbatch",  # Does not involve an optimizer.
    # It compares versions as strings, where 0.10 is less than 0.7.2.
    rewrite={"jax.__version__ < '0.7.2'": "False"},
    OPTIMIZERS={
        "learning": alphaopt_jax.alphaopt(agent=None),
        "pretrained": alphaopt_jax.alphaopt(),
        "frozen": alphaopt_jax.alphaopt(agent=None, learn=False),
        "shared_credit_and_decay": alphaopt_jax.alphaopt(
            agent=None, weight_decay=0.1, config=alphaopt_jax.AlphaOptConfig(credit="shared")
        ),
        "raw_gradient_and_schedule": alphaopt_jax.alphaopt(
            optax.constant_schedule(0.5),
            agent=None,
            config=alphaopt_jax.AlphaOptConfig(direction="gradient"),
        ),
    },
)


def test_suites_contain_the_expected_number_of_tests():
    names = {
        suite: [name for name in dir(suite) if name.startswith("test_")]
        for suite in (ContribTest, AliasTest, ShardingTest)
    }
    assert len(names[ContribTest]) == 2 * (1 * 2 + 4 + 1 + 2 + 2 + 4 + 1)
    assert len(names[AliasTest]) == 2 * (4 + 1 + 1 + 2 + 6 + 2)
    assert len(names[ShardingTest]) == 5 * 3


def _bowl(point, _):
    return jnp.square(point["x"] - 1.0) + 10.0 * jnp.square(point["y"] + 2.0)


def _rosenbrock(point, _):
    return jnp.square(1.0 - point["x"]) + 100.0 * jnp.square(point["y"] - jnp.square(point["x"]))


@pytest.mark.parametrize(("function", "minimum"), [(_bowl, (1.0, -2.0)), (_rosenbrock, (1.0, 1.0))])
def test_optimistix_minimises_with_alphaopt(function, minimum):
    solver = optimistix.OptaxMinimiser(alphaopt_jax.alphaopt(agent=None), rtol=1e-6, atol=1e-6)
    start = {"x": jnp.asarray(-1.0), "y": jnp.asarray(1.5)}

    solution = optimistix.minimise(function, solver, start, max_steps=20_000, throw=False)

    found = (solution.value["x"], solution.value["y"])
    np.testing.assert_allclose(found, minimum, atol=3e-2)
    assert jax.tree.structure(solution.value) == jax.tree.structure(start)
