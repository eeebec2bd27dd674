"""Meta-training learns, resumes bit for bit, and gives the same result on any number of devices."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import alphaopt_jax as alphaopt
from alphaopt_jax._agent import network
from alphaopt_jax.meta import MetaConfig, RunOptions, Schedule, evolution, meta_train, ppo
from alphaopt_jax.meta import _devices as devices
from alphaopt_jax.meta._validation import Validation
from tests.meta.small_tasks import CONFIG, bowls

pytestmark = pytest.mark.slow

_SCHEDULE = Schedule(
    num_rounds=12,
    validate_every=4,
    checkpoint_every=3,
    validation_horizons=(20,),
    validation_tasks=2,
)
_FAMILIES = {"bowls": bowls(), "noisy": bowls("noisy", noise=1.0)}
_VALIDATION = {"held out": bowls("held out", noise=0.3)}


def _train(folder=None, mesh=None, callback=None, **keywords):
    options = RunOptions(folder, mesh, show_progress=False, callback=callback)
    keywords = {"schedule": _SCHEDULE, "config": CONFIG, "options": options} | keywords
    return meta_train(_FAMILIES, validation=_VALIDATION, **keywords)


def _assert_same(agent, other, rtol=0.0, atol=0.0):
    jax.tree.map(
        lambda left, right: np.testing.assert_allclose(left, right, rtol=rtol, atol=atol),
        agent.params,
        other.params,
    )


@pytest.fixture(scope="module")
def uninterrupted():
    return _train()


def test_the_default_implementation_of_keys_changes_nothing(uninterrupted):
    with jax.default_prng_impl("rbg"):
        _assert_same(_train().agent, uninterrupted.agent)


def test_the_result_has_the_history_and_the_best_agent(uninterrupted):
    history = uninterrupted.history
    assert [entry["round"] for entry in history] == [0, 4, 8, 12]
    assert uninterrupted.score == pytest.approx(min(entry["score"] for entry in history))
    validation = Validation(_VALIDATION, (20,), 2, CONFIG)
    scores = validation(uninterrupted.agent.params)
    assert list(scores) == ["held out/20", "held out/20, no horizon"]
    assert scores["held out/20"] != scores["held out/20, no horizon"]
    assert np.mean(list(scores.values())) == pytest.approx(uninterrupted.score, rel=1e-5)


def test_agents_that_always_know_the_horizon_are_not_scored_without_it():
    config = dataclasses.replace(CONFIG, unknown_horizon_fraction=0.0)
    agent = network.init_params(jax.random.key(0), network.make_network(config.agent))

    assert list(Validation(_VALIDATION, (20,), 2, config)(agent)) == ["held out/20"]


def test_a_lack_of_memory_maps_is_reported_before_the_compiler_fails(monkeypatch, tmp_path):
    for name, text in (("_MAPS", "a map\n" * 96), ("_MAPS_LIMIT", "100\n")):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(devices, name, tmp_path / name)

    with pytest.raises(MemoryError, match=r"96 memory maps.* 100.*max_map_count=262144"):
        _train()


def test_an_interrupted_run_resumes_bit_for_bit(uninterrupted, tmp_path):
    def interrupt(number, metrics):
        if number == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(folder=tmp_path, callback=interrupt)
    rounds = []
    resumed = _train(folder=tmp_path, callback=lambda number, metrics: rounds.append(number))

    assert rounds == [6, 7, 8, 9, 10, 11]  # From the last checkpoint, after six rounds.
    _assert_same(resumed.agent, uninterrupted.agent)
    _assert_same(resumed.last_agent, uninterrupted.last_agent)
    assert [entry["round"] for entry in resumed.history] == [0, 4, 8, 12]
    _assert_same(alphaopt.load_agent(tmp_path / "agent.safetensors"), resumed.agent)


def test_a_folder_with_another_run_is_refused(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"seed": 5}))
    with pytest.raises(ValueError, match=r"another run, which differs in .*seed"):
        _train(folder=tmp_path)


def test_a_run_of_a_version_with_other_config_fields_is_refused(tmp_path):
    config = (
        "MetaConfig(optimizer=AlphaOptConfig(minimum_scale=0.001), anytime_steps=30.0, clip=0.2)"
    )
    (tmp_path / "run.json").write_text(json.dumps({"config": config, "seed": 0}))
    with pytest.raises(
        ValueError,
        match=r"made by another version of alphaopt_jax, whose config has other fields, so this"
        r" version cannot resume it\. Choose another folder, delete this one, or install",
    ):
        _train(folder=tmp_path)


def test_eight_devices_give_the_same_result_as_one(uninterrupted):
    sharded = _train(mesh=devices.all_devices_mesh())

    assert len(devices.all_devices_mesh().devices) == 8
    _assert_same(sharded.last_agent, uninterrupted.last_agent, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MetaConfig(copies=3), "`copies` must be even"),
        (
            MetaConfig(groups=1, copies=2, minibatches=4),
            "divided into 4 equal minibatches",
        ),
    ],
)
def test_impossible_populations_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        _train(config=config)


def test_an_empty_mapping_of_families_is_refused():
    with pytest.raises(ValueError, match="at least one family"):
        meta_train({}, validation=_VALIDATION)


def test_nan_is_reported_with_its_round():
    def broken(scale):
        task = bowls().task(scale)
        return dataclasses.replace(task, loss=lambda params, batch: jax.numpy.nan * batch.sum())

    family = dataclasses.replace(bowls("broken"), task=broken)
    with pytest.raises(FloatingPointError, match="Round 0, on 'broken'"):
        meta_train({"broken": family}, validation=_VALIDATION, schedule=_SCHEDULE, config=CONFIG)


def test_training_lowers_the_loss_on_held_out_tasks():
    schedule = Schedule(
        num_rounds=150, validate_every=150, validation_horizons=(20, 60), validation_tasks=8
    )
    result = _train(schedule=schedule)

    start, end = result.history[0]["score"], result.history[-1]["score"]
    assert end < start - 0.25  # In nats: the final loss is a fifth lower.


def test_training_can_start_from_an_agent(uninterrupted):
    start = uninterrupted.agent
    schedule = dataclasses.replace(_SCHEDULE, num_rounds=4)

    result = _train(schedule=schedule, method=ppo.ppo(CONFIG, start))

    assert result.history[0]["score"] == pytest.approx(uninterrupted.score, rel=1e-5)
    assert result.score <= uninterrupted.score + 1e-6
    moved = jax.tree.map(
        lambda old, new: np.abs(old - new).max(), dict(start.params), result.last_agent.params
    )
    assert all(change > 0.0 for change in jax.tree.leaves(moved["actor"]))


def test_an_agent_with_other_layers_is_refused(uninterrupted):
    agent = dataclasses.replace(CONFIG.agent, max_log_rate=CONFIG.agent.max_log_rate + 1.0)
    config = dataclasses.replace(CONFIG, agent=agent)

    with pytest.raises(ValueError, match=r"has max_log_rate=4\.0, but `config.agent` has 5\.0"):
        ppo.ppo(config, uninterrupted.agent)


@pytest.mark.parametrize("strategy", ["openai_es", "persistent_es"])
@pytest.mark.nightly
def test_evolution_lowers_the_loss_on_held_out_tasks(strategy):
    schedule = Schedule(
        num_rounds=150, validate_every=150, validation_horizons=(20, 60), validation_tasks=8
    )
    method = evolution.evolution(CONFIG, strategy, perturbation_std=0.05)
    result = _train(schedule=schedule, method=method)

    assert result.history[-1]["score"] < result.history[0]["score"] - 0.1


_SCRIPT = """
import sys, pathlib
sys.path.insert(0, {root!r})
import jax
if len(sys.argv) > 3:
    jax.distributed.initialize("localhost:" + sys.argv[3], 2, int(sys.argv[2]))
import numpy as np
from tests.meta import test_training as tests
from alphaopt_jax.meta import devices
import alphaopt_jax
folder = None if len(sys.argv) > 3 else sys.argv[1]
result = tests._train(folder=folder, mesh=devices.all_devices_mesh())
if jax.process_index() == 0:
    alphaopt_jax.save_agent(sys.argv[1] + "/result.safetensors", result.last_agent)
"""
_ROOT = str(pathlib.Path(__file__).parents[2])


def _start(folder, *arguments):
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    script = _SCRIPT.format(root=_ROOT)
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, str(folder), *arguments],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.nightly
def test_two_processes_give_the_same_result_as_one(uninterrupted, tmp_path):
    port = str(20000 + os.getpid() % 20000)
    processes = [_start(tmp_path, str(rank), port) for rank in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]

    together = alphaopt.load_agent(tmp_path / "result.safetensors")
    _assert_same(together, uninterrupted.last_agent, rtol=1e-3, atol=1e-5)


@pytest.mark.nightly
def test_a_killed_run_resumes_bit_for_bit(uninterrupted, tmp_path):
    process = _start(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    while process.poll() is None and not (checkpoints / "6").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not (tmp_path / "agent.safetensors").exists()

    again = _start(tmp_path)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors[-2000:]
    _assert_same(alphaopt.load_agent(tmp_path / "result.safetensors"), uninterrupted.last_agent)
