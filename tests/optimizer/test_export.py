"""The whole train step lowers for accelerators that this machine does not have."""

import jax
from jax import export
import pytest

import alphaopt_jax as alphaopt
from tests import training


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_the_whole_train_step_lowers(platform):
    tx = alphaopt.alphaopt(agent=None)
    params = training.init_params()
    arguments = (params, tx.init(params), training.batch(0))

    exported = export.export(jax.jit(training.make_step(tx)), platforms=[platform])(*arguments)

    assert exported.platforms == (platform,)
    assert jax.tree.structure(exported.out_tree.unflatten(exported.out_avals)) == (
        jax.tree.structure((params, arguments[1], 0.0))
    )
