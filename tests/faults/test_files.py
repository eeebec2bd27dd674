"""Damaged files, foreign files and incomplete files are detected and do no harm."""

import ast
import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import pickle
import stat
import struct
import tracemalloc

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import alphaopt_jax as alphaopt
from alphaopt_jax._agent import observation
from alphaopt_jax._storage import atomic, run_folder
from alphaopt_jax._storage import params as params_lib
from alphaopt_jax.baselines import l2l, li_malik
from alphaopt_jax.meta.few_shot.initialization import (
    Initialization,
    load_initialization,
    save_initialization,
)
from alphaopt_jax.tasks.omniglot import characters

resource = pytest.importorskip("resource", reason="Limits of a process simulate a full disk")

_ODD_NAMES = ["a b", "Füße 日本語", "100%25 #1", "-o", "'quoted\" & $HOME", "x" * 200]
_PACKAGE = pathlib.Path(alphaopt.__file__).parent


def _equal(tree, other):
    leaves, others = jax.tree.leaves(tree), jax.tree.leaves(other)
    return len(leaves) == len(others) and all(map(np.array_equal, leaves, others))


def _same(agent, other):
    return _equal(dict(agent.params), dict(other.params)) and agent == dataclasses.replace(
        other, params=agent.params
    )


def _flip(content, share, bit):
    """Returns `content` with one bit flipped."""
    flipped = bytearray(content)
    flipped[min(int(share * len(flipped)), len(flipped) - 1)] ^= 1 << bit
    return bytes(flipped)


def _try(load):
    """Returns the result of `load`, or its error message."""
    try:
        return load(), None
    except ValueError as error:
        return None, str(error)


_SHARES = st.floats(0.0, 1.0, exclude_max=True)
_BITS = st.integers(0, 7)


@pytest.fixture(scope="module")
def agent():
    return dataclasses.replace(alphaopt.load_agent("base"), inverse_sqrt_steps=30.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def saved(agent, folder):
    """The bytes of the agent's file."""
    alphaopt.save_agent(folder / "whole.safetensors", agent)
    return (folder / "whole.safetensors").read_bytes()


@pytest.fixture(scope="module")
def without_checksums(saved, folder):
    """The same file as written by an earlier version."""
    arrays = safetensors.numpy.load(saved)
    with safetensors.safe_open(folder / "whole.safetensors", framework="numpy") as file:
        metadata = {name: text for name, text in file.metadata().items() if name != "checksums"}
    return safetensors.numpy.save(arrays, metadata)


def _header_size(content):
    return 8 + struct.unpack("<Q", content[:8])[0]


@pytest.mark.parametrize("part", ["header", "arrays"])
@hypothesis.given(share=_SHARES, bit=_BITS)
def test_an_agent_with_one_bit_flipped_is_refused_or_is_the_same(
    part, agent, saved, folder, share, bit
):
    cut = _header_size(saved)
    header, arrays = saved[:cut], saved[cut:]
    content = _flip(header, share, bit) + arrays
    if part == "arrays":
        content = header + _flip(arrays, share, bit)
    path = folder / "flipped.safetensors"
    path.write_bytes(content)

    loaded, reason = _try(lambda: alphaopt.load_agent(path))

    if reason is None:
        # Flipping the key of the checksums disables them; all else is detected.
        assert part == "header"
        assert _same(loaded, agent)
    else:
        assert "flipped.safetensors'" in reason


@hypothesis.given(share=_SHARES, bit=_BITS)
def test_an_agent_without_checksums_is_refused_or_has_the_same_shapes(
    agent, without_checksums, folder, share, bit
):
    path = folder / "flipped.safetensors"
    path.write_bytes(_flip(without_checksums, share, bit))

    loaded, reason = _try(lambda: alphaopt.load_agent(path))

    if reason is None:
        assert jax.tree.map(jnp.shape, loaded.params) == jax.tree.map(jnp.shape, agent.params)
    else:
        assert "flipped.safetensors'" in reason


def test_an_agent_without_checksums_is_read(agent, without_checksums, tmp_path):
    (tmp_path / "old.safetensors").write_bytes(without_checksums)

    assert _same(alphaopt.load_agent(tmp_path / "old.safetensors"), agent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved[:-1] + bytes([saved[-1] ^ 1]), r"array \S+"),
        (lambda saved: saved.replace(b'rate":"6.0"', b'rate":"5.0"'), "text max_log_rate"),
        (
            lambda saved: saved.replace(b'"inverse_sqrt_steps"', b'"inverse_sqrt_stems"'),
            "text inverse_sqrt_stems",
        ),
    ],
    ids=["array", "text", "name"],
)
def test_the_damaged_part_is_named(change, message, saved, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(change(saved))

    with pytest.raises(ValueError, match=rf"a\.safetensors' is damaged: {message} changed since"):
        alphaopt.load_agent(tmp_path / "a.safetensors")


def _write_sparse(path, shapes, metadata, held=None):
    """Writes a sparse safetensors file of zeros, which takes no space on the disk."""
    header, end = {"__metadata__": metadata}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + (end if held is None else held))


_USABLE = {
    "format": "alphaopt-agent",
    "contract": str(observation.CONTRACT_VERSION),
    "max_log_rate": "4.0",
}
_MUCH = {"actor/hidden/kernel": [2**14, 2**13]}
_TOO_MUCH = {"actor/hidden/kernel": [2**15, 2**14]}


@pytest.mark.parametrize(
    ("shapes", "metadata", "held", "message"),
    [
        (_MUCH, _USABLE | {"contract": "1"}, None, "observes by contract 1"),
        (_MUCH, {}, None, "but not an agent"),
        (_MUCH, _USABLE | {"format": "pt"}, None, "but not an agent"),
        (_MUCH, _USABLE, None, "needs the parameters of an actor and a critic"),
        (_TOO_MUCH, _USABLE, None, "has 2147483648 bytes of parameters"),
        ({"actor/hidden/kernel": [2**40]}, _USABLE, 4, "is not a safetensors file"),
        ({"actor/hidden/kernel": [2**62, 2**62]}, _USABLE, 4, "is not a safetensors file"),
    ],
    ids=["contract", "library", "format", "arrays", "enormous", "claims", "overflows"],
)
def test_large_files_are_refused_before_they_are_read(shapes, metadata, held, message, tmp_path):
    path = tmp_path / "a.safetensors"
    _write_sparse(path, shapes, metadata, held)

    tracemalloc.start()
    with pytest.raises(ValueError, match=rf"a\.safetensors'.*{message}"):
        alphaopt.load_agent(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2**24  # The refused files have half a gigabyte or more.


def test_a_header_that_claims_to_be_enormous_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")

    too_large = r"is not a safetensors file: .*(header too large|HeaderTooLarge)"
    with pytest.raises(ValueError, match=too_large):
        alphaopt.load_agent(tmp_path / "a.safetensors")


def test_parameters_above_the_size_limit_are_not_written(tmp_path):
    enormous = np.broadcast_to(np.float32(0.0), (2**15, 2**14))

    tracemalloc.start()
    with pytest.raises(ValueError, match="exceed the limit of"):
        params_lib.write_params(tmp_path / "a", {"w": enormous}, kind="test", metadata={})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2**24
    assert not list(tmp_path.iterdir())


def test_arrays_of_another_type_are_refused(agent, tmp_path):
    arrays = {
        name: np.asarray(leaf, np.float16)
        for name, leaf in params_lib.flatten(agent.params).items()
    }
    safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors", _USABLE)

    with pytest.raises(ValueError, match=r"a\.safetensors' has arrays of F16"):
        alphaopt.load_agent(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "names", [["actor", "actor/hidden/kernel"], ["a/" * 5000 + "b"]], ids=["within", "deep"]
)
def test_names_that_form_no_tree_are_refused(names, tmp_path):
    arrays = {name: np.zeros(1, np.float32) for name in names}
    safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors", _USABLE)

    with pytest.raises(ValueError, match="whose name is not a valid path"):
        alphaopt.load_agent(tmp_path / "a.safetensors")


@pytest.mark.parametrize("bound", ["nan", "inf", "-1.0", "0.0", "many"])
def test_invalid_bounds_are_refused(bound, agent, tmp_path):
    arrays = {name: np.asarray(leaf) for name, leaf in params_lib.flatten(agent.params).items()}
    metadata = _USABLE | {"max_log_rate": bound}
    safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors", metadata)

    with pytest.raises(ValueError, match=r"a\.safetensors' does not hold a usable agent"):
        alphaopt.load_agent(tmp_path / "a.safetensors")


class _Trap:
    """Unpickling this object creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def _trap(path, sprung):
    """Writes a pickle, bare or in an archive, that creates the file `sprung` when it is loaded."""
    if path.suffix == ".npz":
        with path.open("wb") as file:
            names = ("background", "evaluation")
            trapped = np.array([_Trap(sprung)], object)
            np.savez(file, **{f"{name}_{what}": trapped for name in names for what in _PARTS})
    else:
        path.write_bytes(pickle.dumps(_Trap(sprung)))


_PARTS = ("bits", "alphabets")


@pytest.mark.parametrize("suffix", [".pickle", ".npz"])
@pytest.mark.parametrize(
    "load",
    [
        alphaopt.load_agent,
        load_initialization,
        l2l.load_lstm,
        li_malik.load_2016,
        li_malik.load_2017,
    ],
    ids=["agent", "initialization", "l2l", "2016", "2017"],
)
def test_no_pickle_is_run_under_any_name(load, suffix, tmp_path):
    _trap(tmp_path / f"a{suffix}", tmp_path / "sprung")
    (tmp_path / f"a{suffix}").rename(tmp_path / "a.safetensors")

    with pytest.raises(ValueError, match="is not a safetensors file"):
        load(tmp_path / "a.safetensors")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("suffix", [".pickle", ".npz"])
def test_no_pickle_is_run_from_the_cache_of_characters(suffix, tmp_path):
    _trap(tmp_path / f"a{suffix}", tmp_path / "sprung")

    assert characters._read_cache(tmp_path / f"a{suffix}") is None
    assert not (tmp_path / "sprung").exists()


def test_the_trap_works(tmp_path):
    _trap(tmp_path / "a.pickle", tmp_path / "sprung")

    pickle.loads((tmp_path / "a.pickle").read_bytes())

    assert (tmp_path / "sprung").exists()


_UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def _runs_code(source):
    """Returns the names in a module's source that could run code from a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        found += [name for name in modules if name.split(".")[0] in _UNPICKLING]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {each.arg: ast.unparse(each.value) for each in node.keywords}
        if called in ("eval", "exec", "compile", "__import__") or keywords.get("shell") == "True":
            found.append(called)
        # Explicitly, since NumPy's default has changed before.
        if called in ("np.load", "numpy.load") and keywords.get("allow_pickle") != "False":
            found.append(called)
        if keywords.get("allow_pickle", "False") != "False":
            found.append("allow_pickle")
    return found


def test_nothing_in_the_package_runs_code_from_files():
    sources = sorted(_PACKAGE.rglob("*.py"))

    assert len(sources) > 50
    assert {path.name: _runs_code(path.read_text()) for path in sources} == {
        path.name: [] for path in sources
    }


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval(text)",
        "exec(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "read(path, allow_pickle=wanted)",
        "run(text, shell=True)",
    ],
)
def test_code_that_runs_files_is_found(source):
    assert _runs_code(source)


@contextlib.contextmanager
def _disk_space(size):
    """Limits the size of files, as on a nearly full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_during_writing_keeps_the_old_agent(agent, saved, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(saved)
    other = dataclasses.replace(agent, params=jax.tree.map(jnp.zeros_like, dict(agent.params)))

    with _disk_space(5000), pytest.raises(OSError, match="too large"):
        alphaopt.save_agent(path, other)

    assert path.read_bytes() == saved
    assert [each.name for each in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_disk_that_is_full_at_the_end_keeps_the_old_agent(agent, saved, tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    path.write_bytes(saved)

    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        alphaopt.save_agent(path, dataclasses.replace(agent, max_log_rate=1.0))

    assert path.read_bytes() == saved
    assert [each.name for each in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_missing_folder_is_named(agent, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*/nowhere'"):
        alphaopt.save_agent(tmp_path / "nowhere" / "a.safetensors", agent)


def test_links_and_file_permissions_are_kept(agent, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "a.safetensors").symlink_to(tmp_path / "real" / "b.safetensors")
    mask = os.umask(0o022)
    try:
        alphaopt.save_agent(tmp_path / "a.safetensors", agent)
    finally:
        os.umask(mask)

    assert (tmp_path / "a.safetensors").is_symlink()
    written = tmp_path / "real" / "b.safetensors"
    assert _same(alphaopt.load_agent(written), agent)
    assert stat.S_IMODE(written.stat().st_mode) == 0o644


@pytest.mark.parametrize("name", _ODD_NAMES)
def test_unusual_names_of_files_work(name, agent, tmp_path, monkeypatch):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    params = {"layer": {"w": jnp.arange(3.0), "temperature": jnp.asarray(2.0)}}

    alphaopt.save_agent(f"{name}/{name}.safetensors", agent)
    save_initialization(f"{name}/start.safetensors", Initialization(params))

    assert _same(alphaopt.load_agent(tmp_path / name / f"{name}.safetensors"), agent)
    loaded = load_initialization(f"{name}/start.safetensors").params
    assert jax.tree.map(jnp.shape, loaded) == jax.tree.map(jnp.shape, params)
    assert _equal(loaded, params)


def _state(number):
    """A state of a run, with an array large enough for a file of its own."""
    values = jax.random.normal(jax.random.key(number), (40, 50))
    return {"params": (values, jnp.arange(5)), "round": jnp.asarray(number, jnp.int32)}


def _store(folder):
    return run_folder.Store(folder, {"seed": 1})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with two checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    store = _store(folder)
    for number in (1, 2):
        store.save(number, _state(number))
    return folder


def _files_of_checkpoint(run, number=2):
    return sorted(path for path in (run / "checkpoints" / str(number)).rglob("*") if path.is_file())


@contextlib.contextmanager
def _in_place_of(path, content):
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def _refuses(run):
    """Returns whether the latest checkpoint is refused; otherwise asserts that it is intact."""
    restored, reason = _try(lambda: _store(run).restore(lambda: _state(0)))
    assert _equal(restored, _state(2)) if reason is None else "checkpoints/2' is damaged" in reason
    return reason is not None


@hypothesis.given(which=_SHARES, share=_SHARES, bit=_BITS)
def test_a_checkpoint_with_one_bit_flipped_is_refused(run, which, share, bit):
    paths = _files_of_checkpoint(run)
    path = paths[int(which * len(paths))]

    with _in_place_of(path, _flip(path.read_bytes(), share, bit)):
        refused = _refuses(run)

    # A flip in the whitespace of the list of checksums changes nothing.
    assert refused or path.name == "checksums.json"


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_checkpoint_with_a_truncated_file_is_refused(run, share):
    for path in _files_of_checkpoint(run):
        content = path.read_bytes()
        with _in_place_of(path, content[: int(share * len(content))]):
            assert _refuses(run) or not content


def test_after_deleting_a_damaged_checkpoint_the_previous_one_is_used(tmp_path):
    store = _store(tmp_path)
    for number in (1, 2):
        store.save(number, _state(number))
    largest = max(_files_of_checkpoint(tmp_path), key=lambda path: path.stat().st_size)
    largest.unlink()

    with pytest.raises(ValueError, match="resume from the previous checkpoint"):
        _store(tmp_path).restore(lambda: _state(0))

    for path in sorted((tmp_path / "checkpoints" / "2").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "checkpoints" / "2").rmdir()
    assert _equal(_store(tmp_path).restore(lambda: _state(0)), _state(1))


def test_a_checkpoint_without_checksums_is_read(run):
    checksums = run / "checkpoints" / "2" / "checksums.json"
    content = checksums.read_bytes()
    checksums.unlink()
    try:
        assert _equal(_store(run).restore(lambda: _state(0)), _state(2))
    finally:
        checksums.write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state | {"round": jnp.zeros(3, jnp.int32)},
        lambda state: state | {"round": jnp.zeros((), jnp.float32)},
        lambda state: state | {"more": jnp.zeros(2)},
        lambda state: {"round": state["round"]},
    ],
    ids=["shape", "type", "more", "fewer"],
)
def test_a_checkpoint_of_another_version_is_refused(change, run):
    with pytest.raises(ValueError, match=r"was written by another version.*arrays differ \[\('00"):
        _store(run).restore(lambda: change(_state(0)))


def test_a_checkpoint_of_another_library_is_refused_and_not_run(tmp_path):
    _store(tmp_path).save(1, _state(1))
    (tmp_path / "checkpoints" / "9").mkdir()
    for name in ("checkpoint", "model.pickle", "default"):
        _trap(tmp_path / "checkpoints" / "9" / name, tmp_path / "sprung")

    with pytest.raises(ValueError, match=r"checkpoints/9' cannot be read"):
        _store(tmp_path).restore(lambda: _state(0))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe"])
def test_a_folder_with_a_damaged_identity_is_refused(content, tmp_path):
    (tmp_path / "run.json").write_bytes(content)

    with pytest.raises(ValueError, match=r"run\.json'.* is damaged"):
        _store(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe", b'{"run": 3}', b"{}"])
def test_a_damaged_result_is_refused(content, tmp_path):
    (tmp_path / "result.json").write_bytes(content)

    with pytest.raises(ValueError, match=r"result\.json'.* is damaged\. Delete it"):
        run_folder.read_result(tmp_path, {"seed": 1})


def test_the_result_of_another_run_is_refused(tmp_path):
    assert run_folder.read_result(tmp_path, {"seed": 1}) is None
    run_folder.write_result(tmp_path, {"seed": 1, "sizes": (2, 3)}, {"score": 0.5})

    found = run_folder.read_result(tmp_path, {"seed": 1, "sizes": (2, 3)})
    assert found == {"score": 0.5}
    with pytest.raises(ValueError, match="holds another run, which differs in seed"):
        run_folder.read_result(tmp_path, {"seed": 2, "sizes": (2, 3)})


@pytest.mark.parametrize("name", _ODD_NAMES)
def test_unusual_names_of_folders_work(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _store(name).save(3, _state(3))

    assert _equal(_store(tmp_path / name).restore(lambda: _state(0)), _state(3))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_that_fills_up_keeps_the_previous_checkpoint(tmp_path):
    store = _store(tmp_path)
    store.save(1, _state(1))

    with _disk_space(3000), pytest.raises(Exception, match="too large"):
        store.save(2, _state(2))

    again = _store(tmp_path)
    assert _equal(again.restore(lambda: _state(0)), _state(1))
    again.save(2, _state(2))
    assert _equal(_store(tmp_path).restore(lambda: _state(0)), _state(2))


def test_an_incomplete_line_of_the_history_is_dropped(tmp_path):
    store = _store(tmp_path)
    for number in range(3):
        store.append_history({"round": number, "score": -0.5 * number})
    path = tmp_path / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-7])

    history = _store(tmp_path).read_history(before=3)
    store.append_history({"round": 2, "score": -1.0})

    expected = [{"round": number, "score": -0.5 * number} for number in range(3)]
    assert history == expected[:2]
    assert [json.loads(line) for line in path.read_text().splitlines()] == expected


def test_a_damaged_history_is_refused(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"round": 1}\n{"round": 2,\n{"round": 3}\n')

    with pytest.raises(ValueError, match=r"history\.jsonl' is damaged"):
        _store(tmp_path).read_history(before=9)


def test_a_disk_that_fills_up_keeps_the_history(tmp_path):
    store = _store(tmp_path)
    for number in range(50):
        store.append_history({"round": number})
    before = (tmp_path / "history.jsonl").read_bytes()

    with _disk_space(100), pytest.raises(OSError, match="too large"):
        store.read_history(before=40)

    assert (tmp_path / "history.jsonl").read_bytes() == before


def test_lines_are_appended_after_the_last_complete_one(tmp_path):
    path = tmp_path / "runs" / "some.jsonl"
    assert atomic.read_json_lines(path) == []
    atomic.add_json_lines(path, [{"run": 1}, {"run": 2}])
    with path.open("a") as file:
        file.write('{"run": ')

    assert atomic.read_json_lines(path) == [{"run": 1}, {"run": 2}]
    atomic.add_json_lines(path, [{"run": 3}])

    assert [each["run"] for each in atomic.read_json_lines(path)] == [1, 2, 3]
