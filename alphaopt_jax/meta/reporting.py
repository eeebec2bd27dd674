"""How a run of meta-training tells what it is doing: a live display, log lines, TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
import importlib.util
import pathlib
import time
from types import TracebackType
from typing import Any

import jax
from rich import console as rich_console
from rich import progress as rich_progress

_SECONDS_BETWEEN_LINES = 60.0


class Reporter:
    """A progress bar in a terminal, a line a minute elsewhere; metrics to TensorBoard if installed.

    Use it as a context manager around the rounds.
    """

    def __init__(self, num_rounds: int, folder: pathlib.Path | None, *, show: bool):
        """Prepares the display.

        Args:
          num_rounds: Rounds in all.
          folder: Where TensorBoard's files go; None writes none.
          show: Whether to show anything.
        """
        self._num_rounds = num_rounds
        self._show = show and jax.process_index() == 0
        self._console = rich_console.Console()
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("meta-training"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TimeRemainingColumn(),
            rich_progress.TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not (self._show and self._console.is_terminal),
        )
        self._task = self._bar.add_task("", total=num_rounds, note="compiling")
        self._writer = _tensorboard_writer(folder) if jax.process_index() == 0 else None
        self._started = time.monotonic()
        self._last_line = 0.0
        self._score = "no score yet"

    def __enter__(self) -> Reporter:
        """Starts the display."""
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the display."""
        self._bar.__exit__(kind, error, trace)
        if self._writer is not None:
            self._writer.close()

    @property
    def seconds(self) -> float:
        """Seconds since this process began to train."""
        return time.monotonic() - self._started

    def round_done(
        self, number: int, family: str, metrics: Mapping[str, float], env_steps: float
    ) -> None:
        """Shows one round and logs its metrics."""
        note = f"{self._score} · {family}, {metrics['horizon']:.0f} steps"
        self._bar.update(self._task, completed=number + 1, note=note)
        if self._writer is not None:
            for name, value in metrics.items():
                self._writer.add_scalar(f"{family}/{name}", value, number)
        if self.seconds - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = self.seconds
            self._line(
                f"round {number + 1}/{self._num_rounds}, {env_steps / 1e6:.1f}M steps,"
                f" {self.seconds:.0f} s · {note}"
            )

    def validated(self, entry: Mapping[str, Any], best: float) -> None:
        """Shows a validation and logs its scores."""
        self._score = f"score {entry['score']:.3f} (best {best:.3f})"
        self._line(f"validation after round {entry['round']}: {self._score}")
        if self._writer is not None:
            for name, value in entry.items():
                if isinstance(value, float):
                    self._writer.add_scalar(f"validation/{name}", value, entry["round"])

    def _line(self, text: str) -> None:
        if self._show and not self._console.is_terminal:
            print(text, flush=True)


def _tensorboard_writer(folder: pathlib.Path | None) -> Any:
    if folder is None or importlib.util.find_spec("tensorboardX") is None:
        return None
    import tensorboardX

    return tensorboardX.SummaryWriter(str(folder / "tensorboard"))
