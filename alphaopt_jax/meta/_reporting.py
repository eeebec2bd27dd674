"""How a run of meta-training tells what it is doing: a display, and TensorBoard if installed."""

from __future__ import annotations

from collections.abc import Mapping
import importlib.util
import pathlib
from typing import Any

import jax

from alphaopt_jax._storage import progress


class Reporter(progress.Progress):
    """A progress display that knows of rounds and validations, and tells TensorBoard too."""

    def __init__(self, num_rounds: int, folder: pathlib.Path | None, *, show: bool):
        """Prepares the display.

        Args:
          num_rounds: Rounds in all.
          folder: Where TensorBoard's files go; None writes none.
          show: Whether to show anything.
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
