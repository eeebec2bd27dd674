"""A training that meets a fault: nothing is lost, what cannot be used is counted, it goes on."""

import math

import numpy as np
import pytest

import alphaopt_jax as alphaopt
from benchmarks import faults

_OPTIMIZERS = {
    "frozen": alphaopt.alphaopt(num_steps=faults.STEPS),
    "learning": alphaopt.alphaopt(learn=True),
    "fresh": alphaopt.alphaopt(agent=None),
}
_NAMES = ["frozen", *(pytest.param(name, marks=pytest.mark.slow) for name in ("learning", "fresh"))]
# In 250 steps the second moments have not forgotten gradients a thousand times as large.
_LASTING = "gradients times 1,000, 50 steps"


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.name)
def test_parameters_stay_finite_and_the_training_goes_on(fault, name):
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


@pytest.mark.parametrize("name", _NAMES)
def test_most_faults_cost_little_and_without_one_the_guard_does_nothing(name):
    def progress(course):
        return math.log(course.losses[0] / course.losses[-1])

    without = faults.train(_OPTIMIZERS[name])
    kept = [
        progress(faults.train(_OPTIMIZERS[name], fault)) / progress(without)
        for fault in faults.FAULTS
        if fault.skipped or fault.steps == 1
    ]

    assert alphaopt.metrics(without.state)["brake"] == 1.0
    assert np.min(kept) > 0.9
