"""What a long run leaves in its folder, and how it is found again.

`run.json` says what run it is, `checkpoints/` holds its latest states (orbax), and `history.jsonl`
a line for every validation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import json
import os
import pathlib
from typing import Any, TypeVar

import chex
import jax

_KEPT = 2
State = TypeVar("State", bound=chex.ArrayTree)


class Store:
    """The folder of one run; a store without a folder keeps nothing."""

    def __init__(self, folder: str | os.PathLike[str] | None, identity: Mapping[str, Any]):
        """Opens the folder of a run, or makes it.

        Args:
          folder: Where; None keeps nothing.
          identity: What makes this run this one, as JSON values.

        Raises:
          ValueError: The folder holds another run.
        """
        self.folder = None if folder is None else pathlib.Path(folder).absolute()
        self._manager: Any = None
        if self.folder is None:
            return
        import orbax.checkpoint as ocp  # Needed only by those who keep checkpoints.

        self.folder.mkdir(parents=True, exist_ok=True)
        _check_identity(self.folder / "run.json", identity)
        options = ocp.CheckpointManagerOptions(max_to_keep=_KEPT)
        self._manager = ocp.CheckpointManager(self.folder / "checkpoints", options=options)

    def restore(self, begin: Callable[[], State]) -> State:
        """Returns the latest state, or that of `begin` where there is none."""
        state = begin()
        if self._manager is None or self._manager.latest_step() is None:
            return state
        import orbax.checkpoint as ocp

        leaves, structure = jax.tree.flatten(state)
        restored = self._manager.restore(
            self._manager.latest_step(), args=ocp.args.StandardRestore(_numbered(leaves))
        )
        return jax.tree.unflatten(structure, [restored[name] for name in _numbered(leaves)])

    def save(self, number: int, state: chex.ArrayTree) -> None:
        """Writes the state after `number` rounds; a kill meanwhile leaves the one before."""
        if self._manager is None or self._manager.latest_step() == number:
            return
        import orbax.checkpoint as ocp

        leaves = _numbered(jax.tree.leaves(state))
        self._manager.save(number, args=ocp.args.StandardSave(leaves))
        self._manager.wait_until_finished()

    def read_history(self, before: int) -> list[dict[str, Any]]:
        """The validations of rounds before `before`; forgets later ones, which will come again."""
        if self.folder is None or not (self.folder / "history.jsonl").exists():
            return []
        path = self.folder / "history.jsonl"
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        kept = [entry for entry in entries if entry["round"] < before]
        if jax.process_index() == 0:
            path.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
        return kept

    def append_history(self, entry: Mapping[str, Any]) -> None:
        """Adds a line to the history."""
        if self.folder is not None and jax.process_index() == 0:
            with (self.folder / "history.jsonl").open("a") as file:
                file.write(json.dumps(entry) + "\n")


def _numbered(leaves: list[Any]) -> dict[str, Any]:
    # Orbax turns tuples into lists and back only where it knows their type; a flat dict is safe.
    return {f"{index:04d}": leaf for index, leaf in enumerate(leaves)}


def _check_identity(path: pathlib.Path, identity: Mapping[str, Any]) -> None:
    described = json.loads(json.dumps(identity))
    if path.exists():
        found = json.loads(path.read_text())
        if found != described:
            different = sorted(
                name
                for name in found.keys() | described.keys()
                if found.get(name) != described.get(name)
            )
            raise ValueError(
                f"{os.fspath(path.parent)!r} holds another run, which differs in"
                f" {', '.join(different)}. Choose another folder, or delete this one."
            )
    elif jax.process_index() == 0:
        path.write_text(json.dumps(described, indent=1) + "\n")
