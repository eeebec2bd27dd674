"""Stored runs belong to the present code: a rename must not make hours of measurement stale."""

import types

import pytest

from benchmarks.common import results
from benchmarks.mnist import optimizers as mnist_optimizers
from benchmarks.mnist import runs as mnist_runs
from benchmarks.omniglot import learning
from benchmarks.omniglot import optimizers as omniglot_optimizers
from benchmarks.omniglot import runs as omniglot_runs
from benchmarks.zero_tuning import optimizers as zero_tuning_optimizers
from benchmarks.zero_tuning import runs as zero_tuning_runs

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "name", [zero_tuning_optimizers.ALPHAOPT, zero_tuning_optimizers.NO_HORIZON]
)
def test_last_stored_version_of_zero_tuning(name):
    store = zero_tuning_runs.open_store(results.RESULTS / "zero_tuning_runs.jsonl")
    spec = zero_tuning_optimizers.alphaopt_spec(name, None)

    assert zero_tuning_runs.versions(store, name)[-1] == spec.version


def test_stored_runs_of_mnist():
    store = mnist_runs.open_store(results.RESULTS / "mnist_runs.jsonl")
    spec = mnist_optimizers.ALPHAOPT

    for seed in range(3):
        assert mnist_runs.Key(spec.name, seed, 3, "MNIST", spec.version) in store


@pytest.mark.parametrize("protocol", learning.PLANS)
def test_stored_results_of_omniglot(protocol):
    folder, plan = results.RESULTS / "omniglot_runs", learning.PLANS[protocol]
    # Nothing is drawn: all that is learned was stored, or reading it fails.
    data = types.SimpleNamespace(name="Omniglot")

    specs, histories = omniglot_optimizers.all_optimizers(plan, data, folder)
    names = [omniglot_runs.name_of(spec, plan, data.name) for spec in specs]

    assert len(histories) == len(learning.BASELINES) + 2
    missing = [name for name in names if not (folder / "tests" / f"{name}.npz").exists()]
    assert missing == []
