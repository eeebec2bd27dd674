"""A lock that reserves a folder for one process."""

from __future__ import annotations

import errno
import os
import pathlib
import socket
import weakref

try:
    import fcntl
except ImportError:  # Not available on Windows: two runs in one folder are not detected there.
    fcntl = None  # type: ignore[assignment]

_MAX_BYTES = 1024  # Length of the text that names the holder of a lock.


class Lock:
    """A lock of this process; the system releases it when the file is closed or the process ends.

    The lock belongs to the process, not to the open file: forked children do not inherit it.
    """

    def __init__(self, folder: pathlib.Path):
        """Acquires the folder's lock; use `hold` instead.

        Args:
          folder: An existing folder.

        Raises:
          ValueError: Another process holds the lock.
        """
        file = os.open(folder / "run.lock", os.O_RDWR | os.O_CREAT, 0o666)
        weakref.finalize(self, os.close, file)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return  # The file system has no locks.
            holder = os.read(file, _MAX_BYTES).decode(errors="replace").strip() or "another process"
            raise ValueError(
                f"{os.fspath(folder)!r} is in use by {holder}. Wait for it, stop it, or choose"
                " another folder."
            ) from error
        os.truncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


# Closing any file at a lock's path releases the lock, so a process opens each path only once.
_HELD: weakref.WeakValueDictionary[pathlib.Path, Lock] = weakref.WeakValueDictionary()


def hold(folder: pathlib.Path) -> Lock | None:
    """Reserves a folder for this process, for as long as the returned lock exists.

    Args:
      folder: An existing folder. One process may hold it several times.

    Returns:
      The lock; None on systems without locks.

    Raises:
      ValueError: Another process holds the lock.

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
