"""Progress of meta-training: a display, and TensorBoard logs if tensorboardX is installed."""

from __future__ import annotations

from collections.abc import Mapping
import importlib.util
import pathlib
from typing import Any

import jax

from alphaopt_jax._storage import progress


class Reporter(progress.Progress):
    """A progress display of rounds and validation scores, which also writes TensorBoard logs."""

    def __init__(self, num_rounds: int, folder: pathlib.Path | None, *, show: bool):
        """Prepares the display.

        Args:
          num_rounds: Total number of rounds.
          folder: Folder of the TensorBoard logs; None writes none.
          show: Whether to show the display.
        """
        super().__init__("meta-training", num_rounds, show=show)
        self._writer = _tensorboard_writer(folder) if jax.process_index() == 0 else None
        self._score = "no score yet"

    def __exit__(self, *error: Any) -> None:
        """Ends the display."""
        super().__exit__(*error)
        if self._writer is not None:
            self._writer.close()

    def round_done(
        self, number: int, family: str, metrics: Mapping[str, float], env_steps: float
    ) -> None:
        """Shows one round and logs its metrics."""
        note = f"{self._score} · {family}, {metrics['horizon']:.0f} steps"
        self.update(number + 1, note, f"{env_steps / 1e6:.1f}M steps · {note}")
        if self._writer is not None:
            for name, value in metrics.items():
                self._writer.add_scalar(f"{family}/{name}", value, number)

    def validated(self, entry: Mapping[str, Any], best: float) -> None:
        """Shows a validation and logs its scores."""
        self._score = f"score {entry['score']:.3f} (best {best:.3f})"
        self.line(f"validation after round {entry['round']}: {self._score}")
        if self._writer is not None:
            for name, value in entry.items():
                if isinstance(value, float):
                    self._writer.add_scalar(f"validation/{name}", value, entry["round"])


def _tensorboard_writer(folder: pathlib.Path | None) -> Any:
    if folder is None or importlib.util.find_spec("tensorboardX") is None:
        return None
    import tensorboardX

    return tensorboardX.SummaryWriter(str(folder / "tensorboard"))
