"""Files that survive a kill or a full disk: atomic writes, and logs of JSON lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
import secrets
from typing import Any


def write(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file atomically: after a kill or an error, the old file is still intact.

    Args:
      path: Path of the file. A symbolic link is followed.
      content: Content of the file.

    Raises:
      FileNotFoundError: The folder does not exist.
      OSError: The file could not be written.
    """
    target = pathlib.Path(path).resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"Cannot write {os.fspath(path)!r}: there is no folder {os.fspath(target.parent)!r}."
            " Create it first."
        )
    # In the same folder, because a rename is atomic only within one file system.
    temporary = target.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_json_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads a file with one JSON object per line.

    Args:
      path: Path of the file; a missing file counts as empty.

    Returns:
      The objects, without an incomplete last line, which a kill or a full disk can leave.

    Raises:
      ValueError: Another line is damaged.
    """
    if not os.path.exists(path):
        return []
    lines = pathlib.Path(path).read_bytes().splitlines(keepends=True)
    try:
        return [json.loads(line) for line in lines if line.endswith(b"\n")]
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)!r} is damaged: {error}. Delete that line.") from error


def add_json_lines(path: str | os.PathLike[str], objects: Sequence[Mapping[str, Any]]) -> None:
    """Appends objects to a file with one JSON object per line, and removes an incomplete last line.

    Args:
      path: Path of the file; created if it is missing.
      objects: Objects to append, of JSON values.
    """
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("a+b") as file:
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
        file.write("".join(json.dumps(each) + "\n" for each in objects).encode())
