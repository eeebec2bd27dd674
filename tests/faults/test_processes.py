"""Runs that are killed, interrupted or started twice end with the same bits as undisturbed ones.

Slow tests kill a process a few times; with HYPOTHESIS_PROFILE=nightly, 20 times.
"""

import json
import os
import pathlib
import queue
import random
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

import alphaopt_jax as alphaopt
from alphaopt_jax._storage import lock, run_folder
from alphaopt_jax.meta import RunOptions, meta_train
from tests.meta.small_tasks import CONFIG, bowls

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and locks")

_NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
_KILLS = 20 if _NIGHTLY else 3
_INTERRUPTS = 10 if _NIGHTLY else 1
_ROUNDS = (
    3 * max(_KILLS, _INTERRUPTS) + 3
)  # A process runs at most three rounds before it is stopped.
_ROOT = str(pathlib.Path(__file__).parents[2])
_TRAIN = f"""
import sys
sys.path.insert(0, {_ROOT!r})
import alphaopt_jax
from alphaopt_jax.meta import RunOptions, Schedule, meta_train
from tests.meta.small_tasks import CONFIG, bowls
folder, rounds = sys.argv[1], int(sys.argv[2])
schedule = Schedule(
    num_rounds=rounds,
    validate_every=4,
    checkpoint_every=1,
    validation_horizons=(20,),
    validation_tasks=2,
)
print("begun", flush=True)
result = meta_train(
    {{"bowls": bowls()}},
    validation={{"held out": bowls("held out", noise=0.3)}},
    schedule=schedule,
    config=CONFIG,
    options=RunOptions(
        folder=folder,
        show_progress=False,
        callback=lambda number, metrics: print(number, flush=True),
    ),
)
alphaopt_jax.save_agent(folder + "/last.safetensors", result.last_agent)
"""
_HOLD = f"""
import os, sys
sys.path.insert(0, {_ROOT!r})
from alphaopt_jax._storage import run_folder
store = run_folder.Store(sys.argv[1], {{"seed": 1}})
child = os.fork()
if child:
    print(child, flush=True)
os.read(0, 1)
os._exit(0)
"""
_WRITE = f"""
import os, pathlib, random, signal, sys, time
sys.path.insert(0, {_ROOT!r})
from alphaopt_jax._storage import atomic
path = pathlib.Path(sys.argv[1])
contents = [bytes([number]) * 4_000_000 for number in (1, 2)]
atomic.write(path, contents[0])
left = 0
for number in range(int(sys.argv[2])):
    child = os.fork()
    while not child:
        for content in contents:
            atomic.write(path, content)
    time.sleep(random.Random(number).uniform(0.0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.read_bytes() in contents, number
    for temporary in path.parent.glob(".*.tmp"):
        temporary.unlink()
        left += 1
print(left, flush=True)
"""


class _Process:
    """A script in its own process; its output is read line by line while it runs."""

    def __init__(self, script, *arguments, cache=None):
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        if cache is not None:  # Caches every program, however quickly it compiled.
            environment |= {
                "JAX_COMPILATION_CACHE_DIR": str(cache),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.errors = ""
        self._lines = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=each, daemon=True) for each in (self._read, self._read_errors)
        ]
        for reader in self._readers:
            reader.start()

    def line(self):
        """The next line of output; None after the last."""
        return self._lines.get(timeout=600)

    def end(self, sent=None):
        """Sends a signal, if any, waits for the process to end, and returns its exit status."""
        if sent is not None:
            self.process.send_signal(sent)
        self.process.stdin.close()
        status = self.process.wait(timeout=600)
        for reader in self._readers:
            reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        return status

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line.strip())
        self._lines.put(None)

    def _read_errors(self):
        self.errors = self.process.stderr.read()


@pytest.fixture(scope="module")
def start():
    """Starts `_Process`es; kills those that still run at the end."""
    started = []

    def start_one(*arguments, **keywords):
        started.append(_Process(*arguments, **keywords))
        return started[-1]

    yield start_one
    for each in started:
        each.process.kill()


@pytest.fixture(scope="module")
def train(start, tmp_path_factory):
    """Starts a training in a folder; all trainings share a compilation cache."""
    cache = tmp_path_factory.mktemp("compiled")
    return lambda folder: start(_TRAIN, folder, _ROUNDS, cache=cache)


@pytest.fixture(scope="module")
def uninterrupted(train, tmp_path_factory):
    """Results of a training that nothing stops."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    process = train(folder)
    assert process.end() == 0, process.errors[-2000:]
    return _results(folder)


def _results(folder):
    """History, without wall-clock times, and agents of a run."""
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    scores = [
        {name: value for name, value in entry.items() if name != "seconds"} for entry in history
    ]
    agents = (alphaopt.load_agent(folder / f"{name}.safetensors") for name in ("agent", "last"))
    return scores, *(jax.tree.map(np.asarray, dict(agent.params)) for agent in agents)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "times"),
    [
        pytest.param(signal.SIGKILL, _KILLS, id="kill", marks=pytest.mark.nightly),
        pytest.param(signal.SIGINT, _INTERRUPTS, id="int"),
    ],
)
def test_a_run_stopped_at_random_moments_ends_with_the_same_bits(
    sent, times, train, uninterrupted, tmp_path
):
    pause = 0.5
    for number in range(times):
        generator = random.Random(number)
        process = train(tmp_path)
        assert process.line() == "begun", process.errors
        for _ in range(generator.randint(0, 2)):
            began = time.monotonic()
            assert process.line() is not None, process.errors
            pause = time.monotonic() - began
        # During the next round, its checkpoint, or the start.
        time.sleep(generator.uniform(0.0, min(pause, 1.0)))
        status = process.end(sent)
        if status == 0:
            # Python drops interrupts during garbage collection and shutdown; the run then ends
            # normally.
            assert sent == signal.SIGINT
            break
        assert status == -sent, process.errors

    process = train(tmp_path)
    assert process.end() == 0, process.errors[-2000:]

    np.testing.assert_equal(_results(tmp_path), uninterrupted)


def test_a_second_process_in_a_folder_is_rejected_while_the_first_lives(start, tmp_path):
    first = start(_HOLD, tmp_path)
    child = first.line()
    assert child is not None, first.errors
    message = rf"is in use by process {first.process.pid} on .*choose another folder"
    with pytest.raises(ValueError, match=message):
        meta_train({"bowls": bowls()}, config=CONFIG, options=RunOptions(folder=tmp_path))

    # The lock is released when the process dies, though its fork lives on.
    first.process.kill()
    first.process.wait(timeout=60)
    os.kill(int(child), 0)
    run_folder.Store(tmp_path, {"seed": 1})
    first.end()


def test_a_process_may_reopen_its_folder(tmp_path):
    stores = [run_folder.Store(tmp_path / "a" / ".." / "a", {"seed": 1}) for _ in range(2)]
    stores.append(run_folder.Store(tmp_path / "a", {"seed": 1}))

    assert len({store.folder.resolve() for store in stores}) == 1
    del stores
    with pytest.raises(ValueError, match="holds another run"):
        run_folder.Store(tmp_path / "a", {"seed": 2})


def test_a_folder_can_be_used_without_file_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)

    store = run_folder.Store(tmp_path, {"seed": 1})

    assert store.restore(lambda: 3) == 3
    assert not (tmp_path / "run.lock").exists()


def test_a_kill_during_a_write_leaves_the_old_file_or_the_new_one(start, tmp_path):
    writer = start(_WRITE, tmp_path / "file", 40)
    left = writer.line()
    assert writer.end() == 0, writer.errors

    assert int(left) > 5  # Kills that left a temporary file behind.
