"""A folder that one process uses at a time."""

from __future__ import annotations

import errno
import os
import pathlib
import socket
import weakref

try:
    import fcntl
except ImportError:  # Not everywhere; two runs in one folder are not noticed there.
    fcntl = None  # type: ignore[assignment]

_LONGEST = 1024  # Bytes that say who holds a lock.


class Lock:
    """Held by this process; the system lets go of it when the file is closed or the process dies.

    A lock of the process and not of the open file: children that it forks do not inherit it.
    """

    def __init__(self, folder: pathlib.Path):
        """Takes the folder's lock; use `hold`.

        Args:
          folder: Which; it is there.

        Raises:
          ValueError: Another process holds it.
        """
        file = os.open(folder / "run.lock", os.O_RDWR | os.O_CREAT, 0o666)
        weakref.finalize(self, os.close, file)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return  # A file system without locks.
            holder = os.read(file, _LONGEST).decode(errors="replace").strip() or "another process"
            raise ValueError(
                f"{os.fspath(folder)!r} is in use by {holder}. Wait for it, stop it, or choose"
                " another folder."
            ) from error
        os.truncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


# Closing any file of a lock's path lets go of it, so that a process opens each only once.
_HELD: weakref.WeakValueDictionary[pathlib.Path, Lock] = weakref.WeakValueDictionary()


def hold(folder: pathlib.Path) -> Lock | None:
    """Holds a folder for this process, for as long as what is returned is kept.

    Args:
      folder: Which; it is there. In one process it may be held several times.

    Returns:
      The lock; None where the system has none.

    Raises:
      ValueError: Another process holds it.

    Example:
      >>> import pathlib, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     lock = hold(pathlib.Path(folder))
    """
    if fcntl is None:
        return None
    place = folder.resolve()
    lock = _HELD.get(place)
    if lock is None:
        lock = _HELD[place] = Lock(place)
    return lock
