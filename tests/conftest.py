"""Before JAX looks, the processor is told to show itself as eight devices, for what is sharded.

What one test has compiled, others and the processes that they start find in a folder of this run.
"""

import os
import pathlib
import tempfile

from hypothesis import settings
import jax
import jaxtyping
import pytest

from tests import checked

# Every call of a function of these modules checks what its signature says. Nothing before this may
# import the package. An integer is a number here, as it is to type checkers.
if checked.CHECKS:
    jaxtyping.install_import_hook(
        checked.MODULES, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
    )

# The first example of a property compiles, which takes as long as it takes.
settings.register_profile("alphaopt", deadline=None, max_examples=30)
settings.register_profile("nightly", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "alphaopt"))

jax.config.update("jax_num_cpu_devices", 8)
# The suite compiles far more than it computes.
_QUICK = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if jax.__version_info__ < (0, 11):  # Later versions stop at a flag that they no longer have.
    _QUICK.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_QUICK])
# Workers and other processes inherit the variable, so that all share the first one's folder.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="alphaopt-tests-"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

_MAPS, _MANY_MAPS = pathlib.Path("/proc/self/maps"), 20_000


@pytest.fixture(autouse=True, scope="module")
def _forgotten_programs():
    """Forgets what was compiled before Linux refuses the process more memory maps (at 65,530).

    Each program takes some, and XLA crashes where it gets none.
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
