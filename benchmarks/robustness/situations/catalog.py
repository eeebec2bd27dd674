"""All situations: what users reported, and others of the same kind."""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import NamedTuple

import numpy as np

from benchmarks.robustness.situations import (
    checks,
    gradients,
    mapped,
    ranges,
    rising,
    trainings,
    usage,
)
from benchmarks.robustness.situations.trainings import Figure


class Situation(NamedTuple):
    """A situation and its criterion.

    Attributes:
      name: Unique description.
      source: Repositories and threads where users met it; empty for one of the same kind.
      bar: What the figure must meet, as in `results.Claim`.
      before: The outcome before the fault was mended, measured with the same function.
      run: Returns the figure, within seconds.
    """

    name: str
    source: str
    bar: str
    before: str
    run: Callable[[], Figure]


def _close(of_mode: Callable[[str], float], text: str) -> Callable[[], Figure]:
    return functools.partial(trainings.worst, of_mode, text)


def _members(members: tuple[int, ...], *, faulty: bool = False) -> Callable[[], Figure]:
    return _close(
        functools.partial(mapped.members_equal_single_trainings, members=members, faulty=faulty),
        "single trainings' parameters within {}",
    )


def _fit(loss: float) -> Callable[[], Figure]:
    return lambda: ranges.as_figure(ranges.line_fit(loss))


_JAX_9092 = "jax 9092"
_FINITE_DIFFERENCES = "within {} of finite differences"
_SINGLE = "single trainings' parameters within {}"
_CHECKS_BEFORE = {
    "jax_debug_nans": "raises FloatingPointError in two modes",
    "jax_numpy_rank_promotion": "raises ValueError in all modes",
    "jax_numpy_dtype_promotion": "raises TypePromotionError in two modes",
}

SITUATIONS = (
    # `shard_map`.
    Situation(
        "`shard_map`: a model on each device",
        "jax 40823, jax PR 27903",
        "<= 0.001",
        "raises: types of branches differ",
        _close(mapped.of_each_device, _SINGLE),
    ),
    Situation(
        "`shard_map` over two axes of a mesh",
        "",
        "<= 0.001",
        "raises TypeError",
        _close(functools.partial(mapped.of_each_device, axes=2), _SINGLE),
    ),
    Situation(
        "`shard_map`: one model, averaged gradients",
        "",
        "<= 0.001",
        "one training's parameters within 9e-08",
        _close(mapped.of_all_devices, "one training's parameters within {}"),
    ),
    # Gradients through the update.
    Situation(
        "gradients through an update",
        "optax 882",
        "<= 0.05",
        "NaN",
        _close(functools.partial(gradients.error, steps=1), _FINITE_DIFFERENCES),
    ),
    Situation(
        "gradients through three updates, without `value`",
        "",
        "<= 0.05",
        "NaN",
        _close(functools.partial(gradients.error, passes=False), _FINITE_DIFFERENCES),
    ),
    Situation(
        "gradient of a schedule's learning rate",
        "",
        "<= 0.05",
        "NaN",
        _close(gradients.error_of_the_schedule, _FINITE_DIFFERENCES),
    ),
    Situation(
        "forward-mode derivatives of three updates",
        "",
        "<= 0.001",
        "NaN",
        _close(gradients.error_of_forward_mode, "within {} of those in reverse mode"),
    ),
    # `vmap`.
    Situation(
        "seeds of a learner under `vmap`",
        "PyAutoFit 1397, torchopt 17, jax 8409",
        "== 1",
        "18 matrix products a step alone, 69 under `vmap`",
        mapped.seeds_under_vmap,
    ),
    Situation(
        "members of `vmap` equal single trainings",
        "",
        "<= 0.001",
        "single trainings' parameters within 5e-09",
        _members((3,)),
    ),
    Situation(
        "members of a nested `vmap` skip steps of their own",
        "",
        "<= 0.001",
        "single trainings' parameters within 1e-07",
        _members((2, 2), faulty=True),
    ),
    # Ranges of numbers.
    Situation(
        "double precision, a loss of 1e24",
        _JAX_9092 + ", Flux.jl 821",
        "<= 1e-6",
        "the first loss, 300 steps skipped",
        _fit(1e24),
    ),
    Situation(
        "double precision, a loss of 1e200",
        "",
        "<= 1e-6",
        "the first loss, 300 steps skipped",
        _fit(1e200),
    ),
    Situation(
        "double precision, a loss of 1e-60",
        "",
        "<= 1e-6",
        "the first loss, 0 steps skipped",
        _fit(1e-60),
    ),
    Situation(
        "single precision, a loss of 1e20",
        "",
        "<= 1e-6",
        "1.2e-14 of the first loss, 0 steps skipped",
        lambda: ranges.as_figure(ranges.large_float32()),
    ),
    Situation(
        "double precision, a spike of 1e30 in one step",
        "",
        "<= 1e-6",
        "1.4e-15 of the first loss, 1 steps skipped",
        lambda: ranges.as_figure(ranges.spike(), skipped=1),
    ),
    Situation(
        "minus infinity where something is forbidden",
        "dynamax 290",
        "<= 0.001",
        "the first loss, 0 steps skipped",
        lambda: ranges.kept(-np.inf),
    ),
    Situation(
        "NaN where there is no gradient",
        "",
        "<= 0.001",
        "the first loss, 0 steps skipped",
        lambda: ranges.kept(np.nan),
    ),
    Situation(
        "minus infinity with weight decay",
        "",
        "<= 0.01",
        "the first loss, 0 steps skipped, a forbidden entry changed",
        lambda: ranges.kept(-np.inf, weight_decay=0.1),
    ),
    Situation(
        "minus infinity in `float16`",
        "",
        "<= 0.001",
        "the first loss, 0 steps skipped, a forbidden entry changed",
        lambda: ranges.kept(-np.inf, dtype="float16"),
    ),
    Situation(
        "slope and offset of different scales, in two leaves as the documentation advises",
        _JAX_9092,
        "<= 1e-6",
        "2.7e-10 of the first loss, 0 steps skipped",
        lambda: ranges.as_figure((ranges.slope_and_offset(apart=True), 0)),
    ),
    Situation(
        "slope and offset of different scales, in one vector",
        "",
        "<= 0.01",
        "1.9e-03 of the first loss, 0 steps skipped",
        lambda: ranges.as_figure((ranges.slope_and_offset(apart=False), 0)),
    ),
    # JAX's own checks.
    *(
        Situation(
            f"`{flag}`",
            {
                "jax_debug_nans": "jax 475, jax 22291",
                "jax_numpy_rank_promotion": "flax 1534",
            }.get(flag, ""),
            "== 0",
            _CHECKS_BEFORE.get(flag, "trains in all modes"),
            functools.partial(checks.under, flag),
        )
        for flag in checks.FLAGS
    ),
    # Calls.
    Situation(
        "a step size carried over from Adam",
        "prodigy 27, dadaptation 29",
        "== 1",
        "a thousand times too slow, without a word",
        usage.carried_over_rate,
    ),
    Situation("multipliers near 1, and schedules", "", "== 0", "0 warnings", usage.usual_rates),
    Situation(
        "Optimistix's solver with the shipped agent",
        "equinox 1089, optax 353",
        "<= 0.03",
        "raises: unhashable type",
        usage.optimistix_solver,
    ),
    Situation(
        "hashes and comparisons of agents", "", "== 1", "raises ValueError", usage.agents_compare
    ),
    Situation(
        "an Equinox module passed whole",
        "equinox 590, equinox 458",
        "== 0",
        "raises: custom_jvp object",
        usage.whole_module,
    ),
    Situation(
        "numbers and names among the parameters", "", "== 0", "raises TypeError", usage.other_leaves
    ),
    Situation(
        "a new episode of an `nnx.Optimizer`",
        "found here",
        "== 1",
        "raises: immutable node",
        usage.nnx_episode,
    ),
    Situation(
        "a new episode of a chain in an `nnx.Optimizer`",
        "",
        "== 1",
        "raises ValueError",
        functools.partial(usage.nnx_episode, chained=True),
    ),
    Situation(
        "a seed of another kind of keys",
        "jax 17743",
        "== 0",
        "raises: invalid PRNG key data",
        usage.other_keys,
    ),
    Situation(
        "another default kind of keys",
        "",
        "== 0",
        "another training: 20 % apart",
        usage.other_default_keys,
    ),
    Situation(
        "rules by name that place a model's arrays",
        "transformers PR 12590, EasyDeL 114",
        "== 0",
        "raises: a rule hits the agent's own `kernel`",
        rising.rules_by_name,
    ),
    Situation(
        "names of models in a learner's state",
        "",
        "== 0",
        "28 names of models among 106",
        rising.strict_rules,
    ),
    # Losses that rise.
    Situation(
        "a generator, whose loss should rise",
        "soumith/ganhacks 2, flax 359, keras 18914",
        "<= 0.2",
        "a backoff in 48.0 % of the steps, error 18",
        rising.ring,
    ),
    Situation(
        "a switch to targets 30 times as large",
        "Qznan/SpanKL 5",
        "<= 3",
        "loss 670 with `value`, 25 without",
        rising.task_switch,
    ),
    Situation(
        "a switch to targets 100 times as large",
        "",
        "<= 3",
        "loss 7500 with `value`, 420 without",
        functools.partial(rising.task_switch, 100.0),
    ),
)
"""All situations; those without a source are of the same kind as the one before them."""
