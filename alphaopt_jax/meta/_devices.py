"""Sharding of meta-training: a population's members along a mesh, all other arrays replicated.

Only the placement of arrays depends on the number of devices or processes. The compiler inserts the
communication, which is mostly sums of gradients over the members.
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

FAST_COMPILE_OPTIONS = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
"""Compiler options for rarely called functions, such as sampling tasks: several times faster to
compile."""

_MAPS = pathlib.Path("/proc/self/maps")
_MAPS_LIMIT = pathlib.Path("/proc/sys/vm/max_map_count")


def check_memory_maps() -> None:
    """Raises an error before the process runs out of memory maps.

    On CPU every compiled program takes 1,500 to 2,500 memory maps. Linux allows a process 65,530 of
    them by default; beyond that the compiler crashes the process.

    Raises:
      MemoryError: 95 % of the memory maps are in use; the message has the remedy.
    """
    if not _MAPS.exists() or not _MAPS_LIMIT.exists():
        return
    used, limit = _MAPS.read_text().count("\n"), int(_MAPS_LIMIT.read_text())
    if used > 0.95 * limit:
        raise MemoryError(
            f"The compiled rounds use {used} memory maps; Linux allows this process {limit}. Start"
            " the run again: it resumes from the last checkpoint, and programs from the compilation"
            " cache use fewer maps. Otherwise raise the limit with"
            " `sudo sysctl -w vm.max_map_count=262144`, or train on fewer families."
        )


def single_device_mesh() -> jax.sharding.Mesh:
    """Returns a mesh of this process's first device."""
    return jax.sharding.Mesh(np.array(jax.local_devices()[:1]), ("population",))


def all_devices_mesh(population_size: int | None = None) -> jax.sharding.Mesh:
    """Returns a mesh of all devices of all processes.

    Args:
      population_size: If given, and there is one process, the mesh has the largest number of
        devices that divides it.

    Example:
      >>> all_devices_mesh(population_size=1).size
      1
    """
    found = jax.devices()
    if population_size is not None and jax.process_count() == 1:
        found = found[: _largest_divisor(population_size, len(found))]
    return jax.sharding.Mesh(np.array(found), ("population",))


def split_cpu(population_size: int) -> None:
    """Makes JAX present the CPU as several devices, about one per core.

    The tasks are too small for the threads of one device. Once JAX has initialized its devices this
    has no effect.

    Args:
      population_size: The number of devices divides it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        jax.config.update("jax_num_cpu_devices", _largest_divisor(population_size, cores or 1))
    except RuntimeError:
        return


def _largest_divisor(number: int, limit: int) -> int:
    return max(divisor for divisor in range(1, limit + 1) if number % divisor == 0)


def replicate(tree: chex.ArrayTree, mesh: jax.sharding.Mesh) -> chex.ArrayTree:
    """Copies every array to every device."""
    return jax.jit(lambda tree: tree, out_shardings=_replicated(mesh))(jax.device_get(tree))


def shard_start(
    start: Callable[[chex.PRNGKey], population.Population], mesh: jax.sharding.Mesh
) -> Callable[[chex.PRNGKey], population.Population]:
    """Jits a function that starts episodes; its members are sharded over the mesh."""
    return jax.jit(
        start, out_shardings=_population_sharding(mesh), compiler_options=FAST_COMPILE_OPTIONS
    )


def shard_round(round_function: Callable[..., Any], mesh: jax.sharding.Mesh) -> Callable[..., Any]:
    """Jits a round of meta-training; its members stay sharded over the mesh."""
    replicated = _replicated(mesh)
    state = method.FamilyState(_population_sharding(mesh), replicated)
    return jax.jit(round_function, out_shardings=(replicated, state, replicated))


def _replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def _population_sharding(mesh: jax.sharding.Mesh) -> Any:
    members = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names[0]))
    replicated = _replicated(mesh)
    shardings: Any = (members, *(replicated for _ in population.Population._fields[1:]))
    return population.Population(*shardings)
