"""A training that meets a fault: nothing is lost, what cannot be used is counted, it goes on."""

import functools
import math

import pytest

import alphaopt_jax as alphaopt
from benchmarks.robustness import faults

pytestmark = pytest.mark.slow

_OPTIMIZERS = {
    "frozen": alphaopt.alphaopt(num_steps=faults.STEPS),
    "learning": alphaopt.alphaopt(learn=True),
    "fresh": alphaopt.alphaopt(agent=None),
}
# `benchmarks.robustness` tries all faults on all optimizers; those that learn take longer.
_LEARNING_MEETS = {
    "a gradient that is NaN, 50 steps",
    "gradients times 1,000, once",
    "gradients uphill, 50 steps",
    "a loss that is NaN, 50 steps",
    "a loss times 1e30, to the end",
    "labels of other classes, 50 steps",
}
_CASES = [
    pytest.param(name, fault, id=f"{name}-{fault.name}")
    for name in _OPTIMIZERS
    for fault in faults.FAULTS
    if name == "frozen" or fault.name in _LEARNING_MEETS
]
# In 250 steps the second moments have not forgotten gradients a thousand times as large.
_LASTING = "gradients times 1,000, 50 steps"


@functools.cache
def _without_fault(name):
    return faults.train(_OPTIMIZERS[name])


def _progress(course):
    return math.log(course.losses[0] / course.losses[-1])


@pytest.mark.parametrize(("name", "fault"), _CASES)
def test_parameters_stay_finite_and_the_training_goes_on(name, fault):
    course = faults.train(_OPTIMIZERS[name], fault)

    assert course.finite.all()
    skipped = alphaopt.metrics(course.state)["updates_skipped"]
    assert skipped == (fault.steps if fault.skipped else 0)
    assert alphaopt.metrics(course.state)["updates_made"] == faults.STEPS - skipped
    # It ends about as good as it was when the fault came: what that has spoiled is made good.
    before, after = course.losses[faults.FIRST], course.losses[-1]
    assert after < (1.25 if fault.name == _LASTING else 1.05) * before
    # At its worst it is no worse than a step uphill of bounded length makes it.
    assert course.losses.max() < 20.0 * course.losses[0]
    # What comes once, or is skipped, costs next to nothing.
    if fault.skipped or fault.steps == 1:
        assert _progress(course) > 0.9 * _progress(_without_fault(name))


@pytest.mark.parametrize("name", _OPTIMIZERS)
def test_without_a_fault_the_guard_does_nothing(name):
    assert alphaopt.metrics(_without_fault(name).state)["brake"] == 1.0
