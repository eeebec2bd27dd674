"""Progress of a long run: a bar in a terminal, otherwise a line per minute."""

from __future__ import annotations

import time
from typing import Any, Self

import jax
from rich import console as rich_console
from rich import progress as rich_progress

_SECONDS_BETWEEN_LINES = 60.0


class Progress:
    """A progress bar, used as a context manager around the run.

    Example:
      >>> with Progress("counting", 3, show=False) as progress:
      ...     for number in range(3):
      ...         progress.update(number + 1, note="all is well")
    """

    def __init__(self, label: str, total: int, *, show: bool):
        """Creates the display.

        Args:
          label: Name of the activity.
          total: Number of parts.
          show: Whether to show anything.
        """
        self._label = label
        self._total = total
        self._show = show and jax.process_index() == 0
        self._console = rich_console.Console()
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn(label),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TimeRemainingColumn(),
            rich_progress.TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not (self._show and self._console.is_terminal),
        )
        self._task = self._bar.add_task("", total=total, note="compiling")
        self._started = time.monotonic()
        self._last_line = 0.0

    def __enter__(self) -> Self:
        """Starts the display."""
        if not self._bar.disable:  # A disabled bar would still print an empty line.
            self._bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        """Ends the display."""
        if not self._bar.disable:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Seconds since the display was created."""
        return time.monotonic() - self._started

    def update(self, completed: int, note: str, line_note: str | None = None) -> None:
        """Updates the display.

        Args:
          completed: Number of completed parts.
          note: Text beside the bar.
          line_note: Text to print instead of `note` without a terminal.
        """
        self._bar.update(self._task, completed=completed, note=note)
        if self.seconds - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = self.seconds
            note = note if line_note is None else line_note
            self.line(f"{self._label} {completed}/{self._total}, {self.seconds:.0f} s · {note}")

    def line(self, text: str) -> None:
        """Prints a line if there is no terminal."""
        if self._show and not self._console.is_terminal:
            print(text, flush=True)
