"""optax's own test suites with AlphaOpt in place of their optimizers."""

import functools
import importlib.util
import inspect
import os
import types
import warnings

import optax

import alphaopt_jax


def _entry(*, gets_value, **fixed):
    """`alphaopt` as an entry of a suite's list; asserts that the suite passes `value` or not."""
    fixed = {"agent": None} | fixed

    @functools.wraps(alphaopt_jax.alphaopt)
    def entry(*args, **kwargs):
        with warnings.catch_warnings():  # The suites pass step sizes of other optimizers.
            warnings.filterwarnings("ignore", "`learning_rate` is", UserWarning)
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


def _load(module_name, class_name, *, exclude=(), rewrite=None, **names):
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


def _variants(names, **more):
    return tuple({"opt_name": name, "opt_kwargs": {}} | more for name in names)


def contrib_test(*names):
    """The suite of `optax.contrib`, for some of `_ENTRIES`."""
    variants = _variants(names, wrapper_name=None, wrapper_kwargs=None)
    return _load(
        "optax.contrib._common_test",
        "ContribTest",
        rewrite={
            "opt_name in ['momo', 'momo_adam'": _GET_VALUE,
            "opt_name in ['polyak_sgd', 'momo', 'momo_adam'": _GET_VALUE,
        },
        contrib=_ENTRIES,
        _MAIN_OPTIMIZERS_UNDER_TEST=variants,
        _ALL_OPTIMIZERS_UNDER_TEST=variants,
    )


def alias_test(*names):
    """The suite of optax's aliases, for some of `_ENTRIES`."""
    return _load(
        "optax._src.alias_test",
        "AliasTest",
        exclude="test_explicit_dtype",  # Its optimizers and their arguments are fixed.
        rewrite={
            "opt_name == 'polyak_sgd'": f"{_GET_VALUE}]",
            "opt_name in ['polyak_sgd']": f"{_GET_VALUE}]",
        },
        _OPTIMIZERS_UNDER_TEST=_variants(names),
        _get_opt=lambda test, opt_name: getattr(_ENTRIES, opt_name),
    )


def sharding_test(**optimizers):
    """The suite of optimizers under explicit sharding."""
    return _load(
        "optax._src.sharding_test",
        "ShardingTest",
        exclude="test_microbatch",  # Does not involve an optimizer.
        # It compares versions as strings, where 0.10 is less than 0.7.2.
        rewrite={"jax.__version__ < '0.7.2'": "False"},
        OPTIMIZERS=optimizers,
    )


def names(suite):
    """Names of a suite's tests."""
    return [name for name in dir(suite) if name.startswith("test_")]


def num_tests(suite):
    return len(names(suite))
