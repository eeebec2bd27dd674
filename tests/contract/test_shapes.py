"""Shape annotations in signatures are complete, and are checked while the tests run."""

import ast
import importlib
import inspect

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from alphaopt_jax._agent import network as network_lib
from alphaopt_jax._learning import ppo, reward
from alphaopt_jax._optimizer import safeguards, stochastic_rounding
from alphaopt_jax.config import AlphaOptConfig
from tests import checked

_checking = pytest.mark.skipif(not checked.CHECKS, reason="shapes are not checked in this run")
_UNSHAPED = {"chex.Array", "jax.Array", "np.ndarray", "Array", "chex.PRNGKey"}


def _wrong_shape():
    return safeguards.bound_gradients(
        safeguards.init(3), jnp.ones((3, 1)), jnp.ones(()), AlphaOptConfig()
    )


def _inconsistent_shapes():
    return reward.divided(jnp.ones(3), jnp.ones(3), jnp.ones(4))


def _wrong_dtype():
    return stochastic_rounding.to_dtype(jnp.ones(3), jnp.bfloat16, jnp.ones((), jnp.int32))


def _missing_time_step():
    return ppo.advantages(jnp.ones((4, 2)), jnp.ones((4, 2)), 0.9, 0.9)


def _wrong_dtype_in_a_method():
    network = network_lib.ActorCritic(actor_hidden=2, critic_hidden=2, max_log_rate=1.0)
    return network.init(jax.random.key(0), jnp.zeros((1, 30), jnp.int32))


@_checking
@pytest.mark.parametrize(
    "call",
    [
        _wrong_shape,
        _inconsistent_shapes,
        _wrong_dtype,
        _missing_time_step,
        _wrong_dtype_in_a_method,
    ],
)
@pytest.mark.parametrize("through", [lambda call: call(), jax.eval_shape], ids=["eager", "traced"])
def test_an_array_that_does_not_match_its_annotation_is_rejected(call, through):
    with pytest.raises(jaxtyping.TypeCheckError):
        through(call)


@_checking
def test_return_values_are_checked(monkeypatch):
    monkeypatch.setattr(stochastic_rounding.jnp, "isfinite", lambda values: jnp.ones((2, 1), bool))

    with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
        stochastic_rounding.to_dtype(jnp.ones(3), jnp.bfloat16, jnp.uint32(0))


def _functions(module):
    """The public functions of a module and the public methods of its public classes."""
    found = [member for name, member in vars(module).items() if name[0] != "_" and callable(member)]
    for member in found:
        if inspect.isclass(member) and member.__module__ == module.__name__:
            members = vars(member).items()
            found += [each for name, each in members if name[0] != "_" or name == "__call__"]
    for function in filter(inspect.isfunction, map(inspect.unwrap, found)):
        if function.__module__ == module.__name__:
            yield function


def _unshaped(annotation):
    """Array types outside `Float[...]` and the like."""
    inside = set()
    found = []
    for node in ast.walk(annotation):
        if isinstance(node, ast.Subscript) and hasattr(jaxtyping, ast.unparse(node.value)):
            inside |= set(ast.walk(node))
        elif isinstance(node, ast.Name | ast.Attribute) and node not in inside:
            found.append(ast.unparse(node))
    return _UNSHAPED & set(found)


@pytest.mark.parametrize("name", checked.MODULES)
def test_array_annotations_have_shapes(name):
    for function in _functions(importlib.import_module(name)):
        for argument, annotation in function.__annotations__.items():
            bare = _unshaped(ast.parse(annotation, mode="eval"))
            assert not bare, f"{function.__qualname__}, {argument}: {bare}"


@pytest.mark.parametrize("name", checked.MODULES)
def test_annotations_can_be_evaluated(name):
    """An annotation that cannot be evaluated would silently go unchecked."""
    for function in _functions(importlib.import_module(name)):
        for annotation in function.__annotations__.values():
            if "chex.ArrayTree" not in annotation:  # Refers to itself by a name private to chex.
                assert eval(annotation, function.__globals__) is not None or annotation == "None"
