"""The folder of a long run: identity, checkpoints, history and result.

`run.json` identifies the run, `checkpoints/` has its latest states (orbax), and `history.jsonl` a
line per validation. The running process holds `run.lock`. `result.json` is the result of a
finished run, for which no other file is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import json
import os
import pathlib
import re
from typing import Any, TypeVar
import zlib

import chex
import jax

from alphaopt_jax._storage import atomic, lock

_MAX_CHECKPOINTS = 2
_CHECKSUMS = "checksums.json"
_RESULT = "result.json"
_BLOCK = 2**20
_REMEDY = "Delete this folder to resume from the previous checkpoint, or from the start."
State = TypeVar("State", bound=chex.ArrayTree)


class Store:
    """The folder of one run; a store without a folder keeps nothing.

    Only one process at a time can open a folder. It may open the folder several times, since an
    interrupted run can be resumed before its first store is garbage-collected.

    Attributes:
      folder: Path of the folder, or None.
      history: Entries of the history so far, oldest first.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, identity: Mapping[str, Any]):
        """Opens the folder of a run, or creates it.

        Args:
          folder: Path of the folder; None keeps nothing.
          identity: JSON values that identify the run.

        Raises:
          ValueError: The folder belongs to another run, or another process is using it.
        """
        self.folder = None if folder is None else pathlib.Path(folder).absolute()
        self.history: list[dict[str, Any]] = []
        self._manager: Any = None
        self._lock: lock.Lock | None = None
        if self.folder is None:
            return
        import orbax.checkpoint as ocp  # Needed only for checkpoints.

        self.folder.mkdir(parents=True, exist_ok=True)
        # Lock before anything else, since orbax deletes unfinished checkpoints.
        if jax.process_index() == 0:
            self._lock = lock.hold(self.folder)
        _check_identity(self.folder / "run.json", identity)
        self._manager = ocp.CheckpointManager(
            self.folder / "checkpoints",
            options=ocp.CheckpointManagerOptions(max_to_keep=_MAX_CHECKPOINTS),
            item_handlers=ocp.StandardCheckpointHandler(),
        )

    def resume(self, begin: Callable[[], State], rounds_done: Callable[[State], int]) -> State:
        """Restores the latest state, and the history up to it.

        Args:
          begin: Returns the first state of a new run.
          rounds_done: Maps a state to its number of completed rounds.

        Returns:
          The latest state, or that of `begin` if there is none.

        Raises:
          ValueError: The latest checkpoint is damaged, or its arrays differ from those of `begin`.
        """
        state = self.restore(begin)
        self.history = self.read_history(rounds_done(state))
        return state

    def save_and_validate(
        self, number: int, state: State, validate: Callable[[State], tuple[State, dict[str, Any]]]
    ) -> State:
        """Saves a state, then validates it and appends the scores to the history.

        A run resumed from this checkpoint repeats the validation, so none is lost to a kill.

        Args:
          number: Number of completed rounds.
          state: State to save.
          validate: Maps a state to the state with its best so far, and an entry of the history.

        Returns:
          The state from `validate`.
        """
        self.save(number, state)
        state, entry = validate(state)
        self.append_history(entry)
        return state

    def restore(self, begin: Callable[[], State]) -> State:
        """Returns the latest state, or that of `begin` if there is none.

        Raises:
          ValueError: The latest checkpoint is damaged, or its arrays differ from those of `begin`.
        """
        state = begin()
        if self._manager is None or self._manager.latest_step() is None:
            return state
        import orbax.checkpoint as ocp

        number = self._manager.latest_step()
        place = self._place(number)
        leaves, structure = jax.tree.flatten(state)
        wanted = _numbered(leaves)
        _check_files(place)
        with _reading(place):
            stored = self._manager.item_metadata(number)
        _check_fits(place, stored, wanted)
        with _reading(place):
            restored = self._manager.restore(number, args=ocp.args.StandardRestore(wanted))
        return jax.tree.unflatten(structure, [restored[name] for name in wanted])

    def save(self, number: int, state: chex.ArrayTree) -> None:
        """Writes the state after `number` rounds; a kill meanwhile keeps the previous one."""
        if self._manager is None or self._manager.latest_step() == number:
            return
        import orbax.checkpoint as ocp

        leaves = _numbered(jax.tree.leaves(state))
        self._manager.save(number, args=ocp.args.StandardSave(leaves))
        self._manager.wait_until_finished()
        if jax.process_index() == 0:
            _write_checksums(self._place(number))

    def read_history(self, before: int) -> list[dict[str, Any]]:
        """Returns the history of rounds before `before`, and deletes that of later rounds."""
        if self.folder is None or not (self.folder / "history.jsonl").exists():
            return []
        path = self.folder / "history.jsonl"
        kept = [entry for entry in atomic.read_json_lines(path) if entry["round"] < before]
        if jax.process_index() == 0:
            atomic.write(path, "".join(json.dumps(entry) + "\n" for entry in kept).encode())
        return kept

    def append_history(self, entry: Mapping[str, Any]) -> None:
        """Appends an entry to the history, in memory and on disk."""
        self.history.append(dict(entry))
        if self.folder is not None and jax.process_index() == 0:
            atomic.add_json_lines(self.folder / "history.jsonl", [entry])

    def _place(self, number: int) -> pathlib.Path:
        assert self.folder is not None
        return self.folder / "checkpoints" / str(number)


def write_result(
    folder: str | os.PathLike[str], identity: Mapping[str, Any], result: Mapping[str, Any]
) -> None:
    """Writes the result of a finished run.

    Args:
      folder: Folder of the run; created if it is missing.
      identity: JSON values that identify the run.
      result: JSON values of the result; the key "run" is reserved.
    """
    place = pathlib.Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"run": dict(identity), **result}, indent=1) + "\n"
    atomic.write(place / _RESULT, text.encode())


def read_result(
    folder: str | os.PathLike[str], identity: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Returns the result written by `write_result`, or None if the run has not finished.

    Args:
      folder: Folder of the run.
      identity: JSON values that identify the run.

    Raises:
      ValueError: The folder has the result of another run, or the file is damaged.
    """
    path = pathlib.Path(folder) / _RESULT
    if not path.exists():
        return None
    try:
        result = dict(json.loads(path.read_bytes()))
        found = dict(result.pop("run"))
    except (ValueError, TypeError, KeyError):
        raise ValueError(
            f"{os.fspath(path)!r}, the result of a run, is damaged. Delete it to resume from the"
            " run's last checkpoint, or from the start."
        ) from None
    _check_same_run(path, found, identity)
    return result


def _numbered(leaves: list[Any]) -> dict[str, Any]:
    # Orbax restores tuples only of types that it knows; a flat dict is restored as it is.
    return {f"{index:04d}": leaf for index, leaf in enumerate(leaves)}


def _write_checksums(place: pathlib.Path) -> None:
    """Writes checksums of all files: orbax has checksums of its small files only."""
    checksums = {
        path.relative_to(place).as_posix(): [path.stat().st_size, _checksum(path)]
        for path in _files_of(place)
    }
    atomic.write(place / _CHECKSUMS, json.dumps(checksums, indent=1).encode())


def _check_files(place: pathlib.Path) -> None:
    """Raises ValueError if a file of the checkpoint changed since it was written."""
    if not (place / _CHECKSUMS).exists():  # An old checkpoint, or a kill before they were written.
        return
    try:
        expected = json.loads((place / _CHECKSUMS).read_bytes())
        damaged = [
            name
            for name, (size, checksum) in expected.items()
            if not (place / name).is_file()
            or (place / name).stat().st_size != size
            or _checksum(place / name) != checksum
        ]
    except (ValueError, TypeError, AttributeError):
        damaged = [_CHECKSUMS]
    if damaged:
        raise ValueError(
            f"The checkpoint {os.fspath(place)!r} is damaged: {', '.join(damaged)} changed since"
            f" it was written. {_REMEDY}"
        )


def _files_of(place: pathlib.Path) -> Iterator[pathlib.Path]:
    return (path for path in sorted(place.rglob("*")) if path.is_file() and path.suffix != ".tmp")


def _checksum(path: pathlib.Path) -> str:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return f"{checksum:08x}"


@contextlib.contextmanager
def _reading(place: pathlib.Path) -> Iterator[None]:
    try:
        yield
    # The type of orbax's error depends on the damaged file.
    except Exception as error:
        raise ValueError(
            f"The checkpoint {os.fspath(place)!r} cannot be read: {error} {_REMEDY}"
        ) from error


def _check_fits(place: pathlib.Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises ValueError if the arrays differ: orbax would silently convert their dtypes."""
    there, here = (
        {(name, tuple(leaf.shape), str(leaf.dtype)) for name, leaf in leaves.items()}
        for leaves in (stored, wanted)
    )
    if there != here:
        raise ValueError(
            f"The checkpoint {os.fspath(place)!r} was written by another version of alphaopt_jax:"
            f" these arrays differ {sorted(there ^ here)}. Choose another folder, or install that"
            " version."
        )


def _check_identity(path: pathlib.Path, identity: Mapping[str, Any]) -> None:
    if path.exists():
        try:
            found = dict(json.loads(path.read_bytes()))
        except (ValueError, TypeError):
            raise ValueError(
                f"{os.fspath(path)!r}, which identifies the run of the folder, is damaged. Choose"
                " another folder, or delete this one."
            ) from None
        _check_same_run(path, found, identity)
    elif jax.process_index() == 0:
        atomic.write(path, (json.dumps(dict(identity), indent=1) + "\n").encode())


def _check_same_run(
    path: pathlib.Path, found: Mapping[str, Any], identity: Mapping[str, Any]
) -> None:
    described = json.loads(json.dumps(dict(identity)))  # JSON has lists in place of tuples.
    different = sorted(
        name for name in found.keys() | described.keys() if found.get(name) != described.get(name)
    )
    if not different:
        return
    if _differ_in_fields(str(found.get("config")), str(described.get("config"))):
        raise ValueError(
            f"{os.fspath(path.parent)!r} holds a run that was made by another version of"
            " alphaopt_jax, whose config has other fields, so this version cannot resume it."
            " Choose another folder, delete this one, or install that version."
        )
    raise ValueError(
        f"{os.fspath(path.parent)!r} holds another run, which differs in"
        f" {', '.join(different)}. Choose another folder, or delete this one."
    )


def _differ_in_fields(config: str, other: str) -> bool:
    """Returns whether two `repr`s of the same config class have different fields."""
    same_class = config.partition("(")[0] == other.partition("(")[0]
    fields, other_fields = (set(re.findall(r"(\w+)=", text)) for text in (config, other))
    return same_class and fields != other_fields
