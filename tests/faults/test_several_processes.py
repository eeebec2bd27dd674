"""Sharded over two processes, training gives the numbers of one."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests import sharded_training

_PROCESS = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize("localhost:" + sys.argv[1], 2, int(sys.argv[2]))
import numpy as np
from tests import sharded_training
params, losses = sharded_training.train_sharded(learn=True)
if jax.process_index() == 0:
    np.savez(sys.argv[3], losses=losses, **params)
"""


@pytest.mark.slow
def test_two_processes_train_to_the_numbers_of_one(tmp_path):
    port, file = str(40000 + os.getpid() % 20000), tmp_path / "together.npz"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, port, str(rank), str(file)],
            stderr=subprocess.PIPE,
            text=True,
            cwd=pathlib.Path(__file__).parents[2],
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]

    expected, losses = sharded_training.train_sharded(learn=True)

    together = np.load(file)
    np.testing.assert_allclose(together["losses"], losses, rtol=1e-5)
    for name, leaf in expected.items():
        np.testing.assert_allclose(together[name], leaf, rtol=1e-4, atol=1e-6)
