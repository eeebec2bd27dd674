"""Inside optax's wrappers it trains as alone, and a gradient that is NaN is skipped and counted."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import optax
import pytest

import alphaopt_jax as alphaopt
from alphaopt_jax._optimizer import state as state_lib
from tests.faults import course

_LASTING = 3
_BODY, _HEAD = {"body": True, "head": False}, {"body": False, "head": True}
_OURS, _SCALED = alphaopt.alphaopt(), alphaopt.scale_by_alphaopt()


@dataclasses.dataclass(frozen=True)
class _Case:
    """A wrapper with AlphaOpt in it, and what is expected of a training with it.

    Attributes:
      tx: What trains.
      worse: The last loss is at most so many times AlphaOpt's alone; None where it is the same.
      spoiled: Where gradients are NaN it is at most so many times what it is without.
      made: How many updates AlphaOpt makes without NaN.
      missed: So many fewer where gradients are NaN.
      skipped: How many of these AlphaOpt itself was given, and counts.
      alone: Which parameters it trains, "all" or "body".
      sees_loss: Whether AlphaOpt is given the loss.
      training: Arguments of `course.trainer`.
      start: From the regression's parameters to what is trained, where this is more.
      trained: From what is trained, and its state, to the parameters to be used.
    """

    tx: optax.GradientTransformation | optax.MultiSteps
    worse: float | None = None
    spoiled: float = 1.2
    made: int = course.STEPS
    missed: int = _LASTING
    skipped: int = _LASTING
    alone: str = "all"
    sees_loss: bool = True
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    start: Callable[[Any], Any] = dict
    trained: Callable[[Any, Any], Any] = lambda params, state: params


_TWICE = {"steps": 2 * course.STEPS}
_UNTOLD = {"told": False}


def _masked(tx):
    return optax.chain(optax.masked(tx, _BODY), optax.masked(optax.set_to_zero(), _HEAD))


def _multi_steps(tx):
    return optax.MultiSteps(tx, every_k_schedule=2, should_skip_update_fn=optax.skip_not_finite)


def _apply_if_finite(tx, max_consecutive_errors=5):
    return optax.apply_if_finite(tx, max_consecutive_errors)


def _sam(tx):
    return optax.contrib.sam(tx, optax.chain(optax.contrib.normalize(), optax.sgd(0.05)))


def _lookahead(tx, **arguments):
    return optax.lookahead(tx, sync_period=5, slow_step_size=0.5, **arguments)


_LOOKS_AHEAD = {
    "start": optax.LookaheadParams.init_synced,
    "trained": lambda pair, state: pair.slow,
    "sees_loss": False,
}
_CASES = {
    # What stands before it, and after it.
    "chain, clip_by_global_norm": _Case(
        optax.chain(optax.clip_by_global_norm(0.1), _OURS), worse=1.3
    ),
    "named_chain, adaptive_grad_clip": _Case(
        optax.named_chain(("clip", optax.adaptive_grad_clip(0.01)), ("ours", _OURS)), worse=1.3
    ),
    "chain, zero_nans": _Case(optax.chain(optax.zero_nans(), _OURS), missed=0, skipped=0),
    "chain, add_decayed_weights": _Case(
        optax.chain(_SCALED, optax.add_decayed_weights(1e-4), optax.scale(-1.0)), worse=1.3
    ),
    "chain, scale_by_schedule": _Case(
        optax.chain(_OURS, optax.scale_by_schedule(optax.linear_schedule(1.0, 0.5, 100))),
        worse=1.5,
    ),
    "chain, scale_by_trust_ratio": _Case(
        optax.chain(_SCALED, optax.scale_by_trust_ratio(), optax.scale(-0.05)), worse=3.0
    ),
    "chain, reduce_on_plateau": _Case(
        optax.chain(_OURS, optax.contrib.reduce_on_plateau(patience=10)), worse=1.3
    ),
    "chain, scale_by_backtracking_linesearch": _Case(
        optax.chain(_OURS, optax.scale_by_backtracking_linesearch(10)),
        worse=1.5,
        spoiled=4.0,  # The search makes small steps for a while.
        training={"grad": lambda grads: grads, "value_fn": lambda grads: course.regression},
    ),
    # What gives it a part of the parameters.
    "masked": _Case(_masked(_OURS), alone="body"),
    "partition": _Case(
        optax.partition(
            {"train": _OURS, "freeze": optax.set_to_zero()}, {"body": "train", "head": "freeze"}
        ),
        alone="body",
    ),
    "selective_transform": _Case(optax.selective_transform(_OURS, freeze_mask=_HEAD), alone="body"),
    "apply_if_finite, partition with Adam": _Case(
        _apply_if_finite(
            optax.partition(
                {"ours": _OURS, "theirs": optax.adam(1e-2)}, {"body": "ours", "head": "theirs"}
            )
        ),
        worse=2.0,
        skipped=0,
    ),
    # What gives it some of the steps.
    "MultiSteps, skip_not_finite": _Case(_multi_steps(_OURS), training=_TWICE, missed=2, skipped=0),
    "apply_if_finite": _Case(_apply_if_finite(_OURS), skipped=0),
    "apply_if_finite that gives up": _Case(_apply_if_finite(_OURS, 1), skipped=_LASTING - 1),
    "conditionally_mask": _Case(
        optax.conditionally_mask(_OURS, lambda step: step % 2 == 0),
        training=_TWICE,
        missed=2,
        skipped=2,
    ),
    "conditionally_transform": _Case(
        optax.conditionally_transform(
            _OURS, lambda step, value: value >= 0, forward_extra_args=True
        )
    ),
    # What changes what it sees or does.
    "inject_hyperparams": _Case(optax.inject_hyperparams(alphaopt.alphaopt)(learning_rate=1.0)),
    "inject_hyperparams, all of them": _Case(
        optax.inject_hyperparams(alphaopt.alphaopt)(
            learning_rate=optax.linear_schedule(0.5, 1.0, 10), num_steps=100, weight_decay=1e-4
        ),
        worse=1.5,
    ),
    "flatten": _Case(optax.flatten(_OURS), worse=1.3),
    "split_real_and_imaginary": _Case(
        optax.contrib.split_real_and_imaginary(_OURS),
        worse=1.3,
        sees_loss=False,
        training=_UNTOLD,
    ),
    "schedule_free": _Case(
        optax.contrib.schedule_free(_OURS, learning_rate=1.0),
        worse=15.0,
        trained=lambda params, state: optax.contrib.schedule_free_eval_params(state, params),
    ),
    "lookahead": _Case(_lookahead(_OURS), worse=3.0, training=_UNTOLD, **_LOOKS_AHEAD),
    "lookahead, reset_state": _Case(
        _lookahead(_OURS, reset_state=True),
        worse=10.0,
        spoiled=1.5,
        made=0,  # What is counted begins anew as well, here at the last step.
        missed=0,
        skipped=0,
        training=_UNTOLD,
        **_LOOKS_AHEAD,
    ),
    "with_extra_args_support, lookahead": _Case(
        optax.with_extra_args_support(_lookahead(_OURS)), worse=3.0, **_LOOKS_AHEAD
    ),
    "apply_if_finite, sam": _Case(
        _apply_if_finite(_sam(_OURS)),
        worse=1.5,
        spoiled=1.5,
        missed=2,
        skipped=0,
        sees_loss=False,
        training=_TWICE | _UNTOLD,
    ),
    "apply_if_finite, mechanize": _Case(
        _apply_if_finite(optax.contrib.mechanize(_OURS)), worse=15.0, skipped=0
    ),
}
# What few use, and what is much like another.
_SLOW = {
    "named_chain, adaptive_grad_clip",
    "chain, scale_by_schedule",
    "chain, scale_by_trust_ratio",
    "chain, reduce_on_plateau",
    "chain, scale_by_backtracking_linesearch",
    "selective_transform",
    "apply_if_finite that gives up",
    "conditionally_transform",
    "inject_hyperparams, all of them",
    "lookahead, reset_state",
    "with_extra_args_support, lookahead",
    "apply_if_finite, mechanize",
}


@functools.cache
def _losses_alone(trained):
    start = course.init_params()
    if trained == "all":
        return course.trainer(_OURS, course.regression)(start).losses
    head = {"head": start["head"]}
    train = course.trainer(_OURS, lambda body: course.regression(body | head))
    return train({"body": start["body"]}).losses


def _moved(params):
    """Of lookahead's pair, those that gradients are of."""
    return getattr(params, "fast", params)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in _SLOW else []) for name in _CASES],
)
def test_it_trains_as_alone_and_goes_on_after_nan(name):
    case, alone = _CASES[name], _losses_alone(_CASES[name].alone)
    train = course.trainer(case.tx, course.regression, moved=_moved, **case.training)
    start = case.start(course.init_params())
    clean, spoiled = train(start), train(start, _LASTING)
    final, after_nan = (
        course.regression(case.trained(found.params, found.state)) for found in (clean, spoiled)
    )

    assert clean.finite.all()
    assert spoiled.finite.all()
    assert final < 0.1 * alone[0]
    if case.worse is None:
        np.testing.assert_allclose(final, alone[-1], rtol=1e-3)
    else:
        assert final < case.worse * alone[-1]
    assert after_nan < case.spoiled * final
    for found, missed, skipped in ((clean, 0, 0), (spoiled, case.missed, case.skipped)):
        metrics = alphaopt.metrics(found.state)
        assert metrics["updates_made"] == case.made - missed
        assert metrics["updates_skipped"] == skipped
        observed = state_lib.find(found.state).loss_history.observed
        assert observed == (metrics["updates_made"] if case.sees_loss else 0)


@pytest.mark.parametrize(
    "tx",
    [
        optax.MultiSteps(_OURS, every_k_schedule=1),
        optax.chain(optax.ema(0.9), _OURS),
    ],
    ids=["MultiSteps", "ema"],
)
def test_where_something_before_it_keeps_a_nan_all_that_follows_is_skipped_and_counted(tx):
    found = course.trainer(tx, course.regression)(course.init_params(), _LASTING)

    assert found.finite.all()
    metrics = alphaopt.metrics(found.state)
    assert metrics["updates_made"] == course.FIRST
    assert metrics["updates_skipped"] == course.STEPS - course.FIRST
    np.testing.assert_array_equal(found.losses[course.FIRST :], found.losses[course.FIRST])


@pytest.mark.parametrize(
    ("wrap", "start"),
    [
        (_lookahead, optax.LookaheadParams.init_synced),
        (_sam, dict),
        (optax.contrib.split_real_and_imaginary, dict),
    ],
    ids=["lookahead", "sam", "split_real_and_imaginary"],
)
def test_wrappers_that_do_not_forward_the_loss_say_so(wrap, start):
    params, tx = course.init_params(), wrap(_OURS)
    state, grads = tx.init(start(params)), jax.grad(course.regression)(params)
    with pytest.raises(TypeError, match="unexpected keyword argument 'value'"):
        tx.update(grads, state, start(params), value=1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrap", "start", "training"),
    [
        (_masked, dict, {}),
        (_multi_steps, dict, _TWICE),
        (_apply_if_finite, dict, {}),
        (optax.flatten, dict, {}),
        (_lookahead, optax.LookaheadParams.init_synced, _UNTOLD),
        (lambda tx: _apply_if_finite(_sam(tx)), dict, _TWICE | _UNTOLD),
    ],
    ids=["masked", "MultiSteps", "apply_if_finite", "flatten", "lookahead", "sam"],
)
def test_an_agent_that_learns_goes_on_learning_in_them(wrap, start, training):
    tx = wrap(alphaopt.alphaopt(learn=True))
    train = course.trainer(tx, course.regression, moved=_moved, **training)
    found = train(start(course.init_params()), _LASTING)

    assert found.finite.all()
    assert found.losses[-1] < 0.05 * found.losses[0]
    metrics = alphaopt.metrics(found.state)
    assert metrics["updates_made"] >= course.STEPS - _LASTING
    assert metrics["rounds"] == metrics["updates_made"] // 8
    assert all(np.isfinite(figure) for figure in metrics.values())
