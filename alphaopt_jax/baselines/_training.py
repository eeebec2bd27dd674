"""The training loop shared by `bptt` and `maml`, which alternates updates and validations."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any, Generic, Protocol, TypeVar

import chex
import optax

from alphaopt_jax._storage import progress as progress_lib
from alphaopt_jax._storage import run_folder

VALIDATION_KEY = 0x7A11D
"""Seed of the validation tasks; different from any seed of training tasks."""


class TrainingState(Protocol):
    """State of a training between two updates."""

    @property
    def episode(self) -> chex.Array:
        """Episodes trained on so far, `int32[]`."""


State = TypeVar("State", bound=TrainingState)


@dataclasses.dataclass(frozen=True)
class Loop(Generic[State]):
    """A training loop.

    Attributes:
      episodes: Number of training episodes.
      episodes_per_update: Episodes that one update trains on.
      validate_every: Episodes between two validations.
      update: From the number of episodes so far and the state to the state after one update.
      validate: From the state to the state with its best so far, and an entry for the history.
      describe: From the state and the latest entry to the text beside the progress bar.
      should_stop: True if the training is to end early; called after each validation.
    """

    episodes: int
    episodes_per_update: int
    validate_every: int
    update: Callable[[int, State], State]
    validate: Callable[[State], tuple[State, dict[str, Any]]]
    describe: Callable[[State, dict[str, Any]], str]
    should_stop: Callable[[State], bool] = lambda state: False

    def run(self, store: run_folder.Store, state: State, *, label: str, show: bool) -> State:
        """Trains from `state` to the end.

        Args:
          store: Receives checkpoints and history.
          state: The first state, or a restored one.
          label: Name in the progress display.
          show: True to show progress.

        Returns:
          The state after the last validation.
        """
        note, stop = "", False
        with progress_lib.Progress(label, self.episodes, show=show) as progress:
            for number in range(int(state.episode), self.episodes + 1, self.episodes_per_update):
                if number % self.validate_every == 0 or number == self.episodes:
                    state = store.save_and_validate(number, state, self.validate)
                    note = self.describe(state, store.history[-1])
                    stop = number == self.episodes or self.should_stop(state)
                progress.update(number, note)
                if stop:
                    break
                state = self.update(number, state)
        return state


def skip_nonfinite(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Skips updates whose gradients are not finite, however many there are in a row.

    An episode that diverges has such gradients, and one update would destroy all that was learned.
    The state counts the skipped updates as `total_notfinite`.
    """
    return optax.apply_if_finite(optimizer, max_consecutive_errors=10**9)
