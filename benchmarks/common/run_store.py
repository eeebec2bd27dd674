"""Stores of finished runs, so that an interrupted benchmark continues where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import io
import json
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from alphaopt_jax._storage import atomic

KeyT = TypeVar("KeyT", bound=tuple[Any, ...])
ResultT = TypeVar("ResultT")


class RunStore(Mapping[KeyT, dict[str, Any]]):
    """Finished runs in a file of JSON lines, as a mapping from keys to runs.

    Each line holds the fields of the key and the values of the run.

    Example:
      >>> import tempfile
      >>> from typing import NamedTuple
      >>> class Key(NamedTuple):
      ...   task: str
      ...   seed: int
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   RunStore(Path(folder) / "runs.jsonl", Key).add({Key("a", 0): {"loss": 0.5}})
      ...   RunStore(Path(folder) / "runs.jsonl", Key)[Key("a", 0)]
      {'loss': 0.5}
    """

    def __init__(self, path: Path | None, key_type: type[KeyT]):
        """Reads all runs.

        Args:
          path: The file, which need not exist yet; None keeps runs in memory only.
          key_type: A `NamedTuple` of strings, numbers and None.
        """
        self._path = path
        self._runs: dict[KeyT, dict[str, Any]] = {}
        fields: tuple[str, ...] = key_type._fields  # type: ignore[attr-defined]
        for record in [] if path is None else atomic.read_json_lines(path):
            self._runs[key_type(*(record.pop(field) for field in fields))] = record

    def __getitem__(self, key: KeyT) -> dict[str, Any]:
        return self._runs[key]

    def __iter__(self) -> Iterator[KeyT]:
        """Keys in the order in which they were added."""
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, runs: Mapping[KeyT, Mapping[str, Any]]) -> None:
        """Adds runs of JSON values, all in one write."""
        self._runs.update({key: dict(run) for key, run in runs.items()})
        if self._path is not None:
            atomic.add_json_lines(self._path, [_line(key, run) for key, run in runs.items()])

    def replace(self, runs: Mapping[KeyT, Mapping[str, Any]]) -> None:
        """Replaces all runs and rewrites the file."""
        self._runs = {key: dict(run) for key, run in runs.items()}
        if self._path is not None:
            lines = (json.dumps(_line(key, run)) + "\n" for key, run in runs.items())
            atomic.write(self._path, "".join(lines).encode())


def _line(key: Any, run: Mapping[str, Any]) -> dict[str, Any]:
    return key._asdict() | dict(run)


def load_or_measure(path: Path, measure: Callable[[], ResultT]) -> ResultT:
    """Reads the result of one run from its own file, or measures and stores it.

    Args:
      path: The file. The suffix `.json` stores JSON values, `.npz` a dict of arrays.
      measure: Returns the result; called only if the file does not exist.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   load_or_measure(Path(folder) / "run.json", lambda: {"loss": 0.5})
      ...   load_or_measure(Path(folder) / "run.json", lambda: {"loss": 0.7})
      {'loss': 0.5}
      {'loss': 0.5}
    """
    if path.suffix not in (".json", ".npz"):
        raise ValueError(f"Results are stored as .json or .npz, not as {path.suffix!r}.")
    if not path.exists():
        result: Any = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npz":
            content = io.BytesIO()
            np.savez_compressed(content, **result)
            atomic.write(path, content.getvalue())
        else:
            atomic.write(path, (json.dumps(result) + "\n").encode())
        return result
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with np.load(path, allow_pickle=False) as found:
        arrays: Any = dict(found)
    return arrays
