"""Stores of finished runs, and the versions that tell stored runs of AlphaOpt apart."""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest

import alphaopt_jax as alphaopt
from benchmarks.common import versions
from benchmarks.common.run_store import RunStore, load_or_measure


class _Key(NamedTuple):
    task: str
    seed: int | None


def test_runs_are_read_again_in_the_order_in_which_they_were_added(tmp_path):
    path = tmp_path / "new" / "runs.jsonl"
    RunStore(path, _Key).add(
        {_Key("b", 0): {"loss": 0.5}, _Key("a", None): {"losses": [1.0, None]}}
    )
    RunStore(path, _Key).add({_Key("a", 1): {"loss": 2.0}})

    store = RunStore(path, _Key)

    assert list(store) == [_Key("b", 0), _Key("a", None), _Key("a", 1)]
    assert store[_Key("a", None)] == {"losses": [1.0, None]}
    assert store.get(_Key("b", 1)) is None
    assert _Key("a", 1) in store


def test_a_cut_off_line_is_left_out(tmp_path):
    path = tmp_path / "runs.jsonl"
    RunStore(path, _Key).add({_Key("a", 0): {"loss": 0.5}, _Key("a", 1): {"loss": 0.6}})
    path.write_bytes(path.read_bytes()[:-5])

    store = RunStore(path, _Key)
    store.add({_Key("a", 2): {"loss": 0.7}})

    assert list(RunStore(path, _Key)) == list(store) == [_Key("a", 0), _Key("a", 2)]


def test_replaced_runs_are_those_of_the_file(tmp_path):
    store = RunStore(tmp_path / "runs.jsonl", _Key)
    store.add({_Key("a", 0): {"loss": 0.5}, _Key("a", 1): {"loss": 0.6}})

    store.replace({_Key("a", 1): {"loss": 0.6}})

    assert (
        dict(RunStore(tmp_path / "runs.jsonl", _Key))
        == dict(store)
        == {_Key("a", 1): {"loss": 0.6}}
    )


def test_a_store_without_a_file_keeps_runs_in_memory():
    store = RunStore(None, _Key)
    store.add({_Key("a", 0): {"loss": 0.5}})

    assert store[_Key("a", 0)] == {"loss": 0.5}


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_result_is_measured_once(suffix, tmp_path):
    measured = []

    def measure():
        measured.append(True)
        return {"values": np.arange(3) if suffix == ".npz" else [0, 1, 2]}

    found = [load_or_measure(tmp_path / "new" / f"run{suffix}", measure) for _ in range(2)]

    assert len(measured) == 1
    for each in found:
        np.testing.assert_array_equal(each["values"], [0, 1, 2])


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"as \.json or \.npz, not as '\.txt'"):
        load_or_measure(tmp_path / "run.txt", dict)


def test_versions_tell_agents_constants_and_learning_apart():
    agent, config = alphaopt.load_agent("base"), alphaopt.AlphaOptConfig()
    other = dataclasses.replace(config, relative_step=0.04)
    found = [
        versions.optimizer_version(agent, config),
        versions.optimizer_version(None, config),
        versions.optimizer_version(agent, other),
        versions.optimizer_version(agent, config, learn=True),
    ]

    assert len(set(found)) == len(found)
    assert found[0] == versions.optimizer_version(agent, dataclasses.replace(config))
