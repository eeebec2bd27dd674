"""Configures JAX before its first use: eight CPU devices, quick compilation, a shared cache.

Workers of pytest-xdist and processes that tests start share the compilation cache of the run.
"""

import os
import pathlib
import tempfile

from hypothesis import settings
import jax
import jaxtyping
import pytest

from tests import checked

# Calls of functions in these modules check shapes and types. Must precede imports of the package.
# `is_pep484_tower`: an int is accepted as a float, as by type checkers.
if checked.CHECKS:
    jaxtyping.install_import_hook(
        checked.MODULES, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
    )

# No deadline, since the first example of a property compiles.
settings.register_profile("alphaopt", deadline=None, max_examples=30)
settings.register_profile("nightly", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "alphaopt"))

jax.config.update("jax_num_cpu_devices", 8)
# Compilation takes most of the time of the tests.
_QUICK = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if jax.__version_info__ < (0, 11):  # Later versions reject this flag.
    _QUICK.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_QUICK])
# Workers and other processes inherit the variables.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="alphaopt-tests-"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

_MAPS, _MANY_MAPS = pathlib.Path("/proc/self/maps"), 20_000


@pytest.fixture(autouse=True, scope="module")
def _clear_compiled_programs():
    """Clears JAX's caches before the process reaches Linux's limit of 65,530 memory maps.

    Each compiled program holds some maps; XLA crashes when it gets no more.
    """
    yield
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MANY_MAPS:
        jax.clear_caches()


@pytest.fixture(scope="session")
def decided_agent():
    """An agent with random parameters, so that its actions are not all zero."""
    import alphaopt_jax

    tx = alphaopt_jax.alphaopt(agent=None, learn=False)
    fresh = alphaopt_jax.agent_from_state(tx.init(jax.numpy.zeros(1)))
    leaves, structure = jax.tree.flatten(fresh.params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    leaves = [
        0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)
    ]
    return alphaopt_jax.Agent(structure.unflatten(leaves), max_log_rate=fresh.max_log_rate)
