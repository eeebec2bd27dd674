"""Trainings with a fault keep finite parameters, count skipped steps, and continue."""

import functools
import math

import pytest

import alphaopt_jax as alphaopt
from benchmarks.robustness import faults, runs

pytestmark = pytest.mark.slow

_OPTIMIZERS = {
    "frozen": alphaopt.alphaopt(num_steps=faults.STEPS),
    "learning": alphaopt.alphaopt(learn=True),
    "fresh": alphaopt.alphaopt(agent=None),
}
# Learning agents compile longer and get fewer faults; `benchmarks.robustness` runs all of them.
_FAULTS_OF_LEARNING_AGENTS = {
    "NaN in one gradient, 50 steps",
    "gradients times 1,000, once",
    "gradients with opposite sign, 50 steps",
    "NaN as loss, 50 steps",
    "loss times 1e30, to the end",
    "wrong labels, 50 steps",
}
_CASES = [
    pytest.param(name, fault, id=f"{name}-{fault.name}")
    for name in _OPTIMIZERS
    for fault in faults.FAULTS
    if name == "frozen" or fault.name in _FAULTS_OF_LEARNING_AGENTS
]
# 250 steps are too few for the second moments to forget gradients a thousand times as large, and to
# make up for all of 50 bold steps uphill.
_SLOW_RECOVERY = {"gradients times 1,000, 50 steps", "gradients with opposite sign, 50 steps"}


_STARTS = range(8)  # Another rounding is another training, ahead or behind by a tenth.


@functools.cache
def _without_fault(name):
    return runs.train(_OPTIMIZERS[name])


def _progress(name, fault):
    """Mean over several starts of the logarithm of first over last loss."""
    courses = [runs.train(_OPTIMIZERS[name], fault, seed=seed) for seed in _STARTS]
    return sum(math.log(each.losses[0] / each.losses[-1]) for each in courses) / len(courses)


@functools.cache
def _progress_without_fault(name):
    return _progress(name, None)


@pytest.mark.parametrize(("name", "fault"), _CASES)
def test_parameters_stay_finite_and_the_training_continues(name, fault):
    course = runs.train(_OPTIMIZERS[name], fault)

    assert course.finite.all()
    skipped = alphaopt.metrics(course.state)["updates_skipped"]
    assert skipped == (fault.steps if fault.skipped else 0)
    assert alphaopt.metrics(course.state)["updates_made"] == faults.STEPS - skipped
    # The final loss is about that before the fault, or better.
    before, after = course.losses[faults.FIRST], course.losses[-1]
    assert after < (1.25 if fault.name in _SLOW_RECOVERY else 1.05) * before
    # The largest loss is that of bounded steps uphill.
    assert course.losses.max() < 20.0 * course.losses[0]
    # A fault of one step, or one that is skipped, costs little progress.
    if fault.skipped or fault.steps == 1:
        assert _progress(name, fault) > 0.9 * _progress_without_fault(name)


@pytest.mark.parametrize("name", _OPTIMIZERS)
def test_safeguards_are_inactive_without_a_fault(name):
    assert alphaopt.metrics(_without_fault(name).state)["backoff"] == 1.0
