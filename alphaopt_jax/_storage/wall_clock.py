"""Wall-clock time of a training across interruptions, stored in its folder."""

from __future__ import annotations

import json
import pathlib
import threading
import time
from typing import Any, Self

from alphaopt_jax._storage import atomic

_INTERVAL = 30.0  # Seconds between two writes; a kill loses at most this much.


class Stopwatch:
    """Sums the running time of successive processes; used as a context manager.

    While it runs, the time is written to its file every half minute.

    Example:
      >>> import pathlib, tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder) / "time.json"
      ...     for _ in range(2):
      ...         with Stopwatch(path) as watch:
      ...             pass
      ...     watch.sessions
      2
    """

    def __init__(self, path: pathlib.Path, interval: float = _INTERVAL):
        """Reads the time so far.

        Args:
          path: Path of the file.
          interval: Seconds between two writes.

        Raises:
          ValueError: The file is damaged.
        """
        self._path, self._interval = path, interval
        self._before, self.sessions = 0.0, 0
        if path.exists():
            try:
                kept = json.loads(path.read_bytes())
                self._before, self.sessions = float(kept["seconds"]), int(kept["sessions"])
            except (ValueError, TypeError, KeyError):
                raise ValueError(
                    f"{str(path)!r}, the time of a training so far, is damaged. Delete it to count"
                    " from now on."
                ) from None
        self._began: float | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    @property
    def seconds(self) -> float:
        """Seconds of all sessions so far."""
        running = 0.0 if self._began is None else time.monotonic() - self._began
        return self._before + running

    def __enter__(self) -> Self:
        """Starts a session."""
        self._began = time.monotonic()
        self.sessions += 1
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        """Ends the session."""
        self._done.set()
        self._thread.join()
        self._before, self._began = self.seconds, None
        self._write()

    def _keep(self) -> None:
        while not self._done.wait(self._interval):
            self._write()

    def _write(self) -> None:
        kept = {"seconds": round(self.seconds, 1), "sessions": self.sessions}
        atomic.write(self._path, json.dumps(kept).encode())
