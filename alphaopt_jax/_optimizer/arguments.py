"""Checks of the arguments of `alphaopt(...)`, at the call.

Numbers of Python and NumPy are checked. Arrays of JAX, which may be traced, and functions pass
unchecked.
"""

from __future__ import annotations

import math
import os
from typing import Any
import warnings

import chex
import jax
import numpy as np

from alphaopt_jax._agent import agent as agent_lib
from alphaopt_jax.config import DEFAULT_BLOCK_SIZE, AlphaOptConfig

_LOWEST, _HIGHEST = 0.2, 5.0
"""Bounds of a `learning_rate` without a warning: a rate carried over from SGD, 0.1, has one."""
_CALLER = 3
"""Levels of the call stack from a warning to the caller of `alphaopt`."""


def check_learning_rate(rate: Any, config: AlphaOptConfig) -> None:
    """Checks the multiplier of the agent's rates, and warns of a constant far from 1.

    Args:
      rate: As in `alphaopt`.
      config: Bounds the rates.

    Raises:
      ValueError: It is neither a number nor a function, negative, or not finite.
    """
    number = _number(rate)
    if number is None:
        if callable(rate) or _is_array(rate):
            return
        raise ValueError(
            "`learning_rate` must be a number or a function of the number of updates, such as"
            f" `optax.linear_schedule(0.0, 1.0, 100)`; got {_describe(rate)}. Leave it out for the"
            " default, 1."
        )
    if not 0.0 <= number < math.inf:
        raise ValueError(
            "`learning_rate` multiplies the rates that the agent chooses, so it must be finite and"
            f" not negative; got {number:g}. To maximize, change the sign of the loss."
        )
    meaning = (
        f"`learning_rate` is {number:g}, but it is no step size: it multiplies the rates that the"
        " agent chooses, and 1 is the default."
    )
    if number < _LOWEST:
        effect = f"are {1.0 / number:,.0f} times smaller" if number else "are zero"
        warnings.warn(
            f"{meaning} All steps {effect}. A number carried over from another optimizer, such as"
            " Adam's 0.001, makes training that much slower. Leave it out, or pass a number near"
            " 1.",
            stacklevel=_CALLER,
        )
    elif number > _HIGHEST:
        largest = config.max_relative_step / config.relative_step
        warnings.warn(
            f"{meaning} A step is bounded, so that values above {largest:.3g} have the effect of"
            f" {largest:.3g}. Leave it out, or pass a number near 1; the planned number of updates"
            " is `num_steps`.",
            stacklevel=_CALLER,
        )


def check_weight_decay(strength: Any) -> None:
    """Checks the strength of weight decay.

    Args:
      strength: As in `alphaopt`.

    Raises:
      ValueError: It is neither a number nor a function, negative, or not finite.
    """
    number = _number(strength)
    if number is None and not (callable(strength) or _is_array(strength)):
        raise ValueError(
            "`weight_decay` must be a number, or a function of the number of updates; got"
            f" {_describe(strength)}. Leave it out for none."
        )
    if number is not None and not 0.0 <= number < math.inf:
        raise ValueError(
            f"`weight_decay` must be finite and not negative; got {number:g}. It is subtracted, as"
            " in `optax.adamw`."
        )


def check_mask(mask: Any) -> None:
    """Checks the kind of a mask of weight decay; its structure is checked with the parameters.

    Args:
      mask: As in `alphaopt`.

    Raises:
      ValueError: It is neither a function nor a pytree of booleans.
    """
    if mask is None or is_function(mask):
        return
    wrong = [leaf for leaf in jax.tree.leaves(mask) if not _is_boolean(leaf)]
    if wrong:
        raise ValueError(
            "`mask` must be a pytree of booleans like the parameters, or a function from parameters"
            f" to one; got {_describe(wrong[0])} in it. For a strength of their own for some"
            " parameters use `optax.partition`."
        )


def is_function(mask: Any) -> bool:
    """True if the mask is a function; a callable pytree of booleans is not."""
    leaves = jax.tree.leaves(mask)
    return bool(leaves) and all(callable(leaf) for leaf in leaves)


def resolve_num_steps(num_steps: Any) -> chex.Numeric | None:
    """Checks the planned number of updates.

    Args:
      num_steps: As in `alphaopt`.

    Returns:
      An int, an array of JAX as it was given, or None.

    Raises:
      ValueError: It is not a whole number of at least 1.
    """
    if num_steps is None or (_is_array(num_steps) and num_steps.shape == ()):
        return num_steps
    number = _number(num_steps)
    if number is None or not (1 <= number < math.inf and number == math.floor(number)):
        raise ValueError(
            "`num_steps` is the planned number of updates, a whole number of at least 1, or None"
            f" if it is unknown; got {_describe(num_steps)}."
        )
    return int(num_steps)


def resolve_learn(learn: Any, *, default: bool) -> bool:
    """Checks `learn`.

    Args:
      learn: As in `alphaopt`.
      default: The value in place of None.

    Raises:
      ValueError: It is neither a boolean nor None.
    """
    if learn is None:
        return default
    if not isinstance(learn, (bool, np.bool_)):
        raise ValueError(
            "`learn` must be True, False, or None for the default; got"
            f" {_describe(learn)}. It decides what is compiled, so it cannot be an array."
        )
    return bool(learn)


def resolve_backoff(backoff: Any) -> bool:
    """Checks `backoff`.

    Args:
      backoff: As in `alphaopt`.

    Raises:
      ValueError: It is not a boolean.
    """
    if not isinstance(backoff, (bool, np.bool_)):
        raise ValueError(
            f"`backoff` must be True, or False to turn it off; got {_describe(backoff)}."
        )
    return bool(backoff)


def resolve_coordinates(coordinates: Any, block_size: int) -> int:
    """Checks `coordinates` and returns the width of the blocks; 0 for the parameters' own.

    Args:
      coordinates: As in `alphaopt`.
      block_size: The agent's block size.

    Raises:
      ValueError: It is not a name of coordinates.
    """
    if coordinates is None:
        return block_size
    if not isinstance(coordinates, str) or coordinates not in ("rotated", "parameters"):
        raise ValueError(
            '`coordinates` must be "rotated", "parameters", or None for those of the agent; got'
            f" {_describe(coordinates)}."
        )
    if coordinates == "parameters":
        return 0
    return block_size or DEFAULT_BLOCK_SIZE


def check_config(config: Any) -> None:
    """Checks the class of the constants.

    Args:
      config: As in `alphaopt`.

    Raises:
      ValueError: They are of another class.
    """
    if config is not None and not isinstance(config, AlphaOptConfig):
        raise ValueError(
            "`config` must be an AlphaOptConfig, such as"
            " `AlphaOptConfig(agent=AgentConfig(...), learning=LearningConfig(...))`; got"
            f" {_describe(config)}."
        )


def resolve_agent(agent: Any) -> agent_lib.Agent | None:
    """Loads an agent given by its name or path.

    Args:
      agent: As in `alphaopt`.

    Raises:
      FileNotFoundError: There is none of this name or path.
      ValueError: It is something else, or a file without a usable agent.
    """
    if isinstance(agent, (str, os.PathLike)):
        return agent_lib.load_agent(agent)
    if agent is not None and not isinstance(agent, agent_lib.Agent):
        raise ValueError(
            "`agent` must be an Agent, the name or path of one, or None for a fresh one; got"
            f" {_describe(agent)}. `agent_from_state(state)` takes one out of an optimizer's state."
        )
    return agent


def _number(value: Any) -> float | None:
    """A constant of Python or NumPy as a float; None for anything else."""
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value[()]
    if isinstance(value, (bool, np.bool_)):
        return None
    return float(value) if isinstance(value, (int, float, np.integer, np.floating)) else None


def _is_array(value: Any) -> bool:
    """True for an array of JAX or a variable that holds one; NumPy's arrays are constants."""
    return hasattr(value, "dtype") and not isinstance(value, (np.ndarray, np.generic))


def _is_boolean(leaf: Any) -> bool:
    is_boolean = isinstance(leaf, bool) or str(getattr(leaf, "dtype", "")) == "bool"
    return is_boolean and np.shape(leaf) == ()


def _describe(value: Any) -> str:
    if isinstance(value, (bool, int, float, complex, str, type)) or value is None:
        return repr(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of the shape {value.shape} and the type {value.dtype}"
    return f"an object of type {type(value).__name__}"
