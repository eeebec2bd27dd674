"""Files that a kill or a full disk cannot spoil: written as a whole, or a line after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
import secrets
from typing import Any


def write(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file as a whole: after a full disk or a kill on the way, the old one is still there.

    Args:
      path: The file to write. Where it is a link, what it links to.
      content: All of it.

    Raises:
      FileNotFoundError: There is no such folder.
      OSError: It could not be written.
    """
    target = pathlib.Path(path).resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"Cannot write {os.fspath(path)!r}: there is no folder {os.fspath(target.parent)!r}."
            " Make it first."
        )
    # In the same folder, since only there a rename is one step.
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
    """Reads a file to which a JSON object was added now and then, a line each.

    Args:
      path: The file; one that is not there is as good as an empty one.

    Returns:
      The objects. A last line that was cut off by a kill or a full disk is left out.

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
    """Adds objects to such a file, after what is whole of it.

    Args:
      path: The file; made where there is none.
      objects: What to add, as JSON values.
    """
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("a+b") as file:
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
        file.write("".join(json.dumps(each) + "\n" for each in objects).encode())
