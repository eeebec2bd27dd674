"""How a population is spread over devices: its members along a mesh, everything else everywhere.

Nothing but the placement of arrays changes with the number of devices or processes; the compiler
puts in the communication (each round ends in one sum of gradients over the members).
"""

from __future__ import annotations

from collections.abc import Callable
import os
import pathlib
from typing import Any

import chex
import jax
import numpy as np

from alphaopt_jax.meta import _population as population
from alphaopt_jax.meta import method

QUICK_TO_COMPILE = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
"""For what runs rarely, such as drawing tasks, which else takes several times longer to compile."""


_MAPS = pathlib.Path("/proc/self/maps")
_MAPS_LIMIT = pathlib.Path("/proc/sys/vm/max_map_count")


def check_memory_maps() -> None:
    """Refuses to go on where Linux is about to.

    On CPU every compiled program takes some 1,500 to 2,500 memory maps, of which a process may have
    65,530 by default; beyond them the compiler fails, and the process with it.

    Raises:
      MemoryError: Nineteen of twenty are taken; says what to do.
    """
    if not _MAPS.exists() or not _MAPS_LIMIT.exists():
        return
    taken, limit = _MAPS.read_text().count("\n"), int(_MAPS_LIMIT.read_text())
    if taken > 0.95 * limit:
        raise MemoryError(
            f"The compiled rounds of the families so far take {taken} memory maps, of which Linux"
            f" allows this process {limit}. Run the same again to go on from the last checkpoint"
            " with what is compiled already, which takes fewer; else allow more with"
            " `sudo sysctl -w vm.max_map_count=262144`, or train on fewer families."
        )


def single_device_mesh() -> jax.sharding.Mesh:
    """Returns a mesh of this process's first device."""
    return jax.sharding.Mesh(np.array(jax.local_devices()[:1]), ("population",))


def all_devices_mesh(members: int | None = None) -> jax.sharding.Mesh:
    """Returns a mesh of all devices of all processes.

    Args:
      members: If given, only as many devices of a single process as share them equally.
    """
    found = jax.devices()
    if members is not None and jax.process_count() == 1:
        found = found[: _largest_divisor(members, len(found))]
    return jax.sharding.Mesh(np.array(found), ("population",))


def split_processor(members: int) -> None:
    """Has JAX show the CPU as about as many devices as it has cores, to share members among them.

    Tasks are so small that one device's threads have nothing to share. It comes too late, and does
    nothing, where JAX has looked at its devices already.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        jax.config.update("jax_num_cpu_devices", _largest_divisor(members, cores or 1))
    except RuntimeError:
        return


def _largest_divisor(number: int, most: int) -> int:
    return max(each for each in range(1, most + 1) if number % each == 0)


def replicate(tree: chex.ArrayTree, mesh: jax.sharding.Mesh) -> chex.ArrayTree:
    """Puts a copy of every array on every device."""
    return jax.jit(lambda tree: tree, out_shardings=_everywhere(mesh))(jax.device_get(tree))


def shard_start(
    start: Callable[[chex.PRNGKey], population.Population], mesh: jax.sharding.Mesh
) -> Callable[[chex.PRNGKey], population.Population]:
    """Jits a function that begins episodes so that the members come out spread over the mesh."""
    return jax.jit(start, out_shardings=_of_population(mesh), compiler_options=QUICK_TO_COMPILE)


def shard_round(round_function: Callable[..., Any], mesh: jax.sharding.Mesh) -> Callable[..., Any]:
    """Jits a round of meta-training so that its members stay spread over the mesh."""
    everywhere = _everywhere(mesh)
    state = method.FamilyState(_of_population(mesh), everywhere)
    return jax.jit(round_function, out_shardings=(everywhere, state, everywhere))


def _everywhere(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def _of_population(mesh: jax.sharding.Mesh) -> Any:
    members = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names[0]))
    everywhere = _everywhere(mesh)
    placed: Any = (members, *(everywhere for _ in population.Population._fields[1:]))
    return population.Population(*placed)
