"""Pretrained baselines: every file loads, and has a card that describes its training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alphaopt_jax.baselines import _recipes, li_malik
from alphaopt_jax.baselines.l2l import l2l
from alphaopt_jax.pretrained import _files
from alphaopt_jax.pretrained import card as card_lib
from alphaopt_jax.tasks.papers import l2l as tasks

_NAMES = _files.pretrained_names(_files.BASELINES)


def test_all_baselines_of_the_papers_are_included():
    policies = {f"li-malik-{name}" for name in ("logistic", "robust", "tiny-net", "2017")}
    lstms = {f"l2l-{name}" for name in ("quadratics", "mnist", "projected-mnist")}
    assert lstms | policies == set(_NAMES)


@pytest.mark.parametrize(
    ("name", "dimension"), [("logistic", 4), ("robust", 4), ("tiny-net", 12), ("2017", None)]
)
def test_pretrained_policies_are_optax_transformations(name, dimension):
    make = li_malik.li_malik_2016 if dimension else li_malik.li_malik_2017
    tx = make(f"li-malik-{name}")
    params = jnp.ones(dimension or 3)

    updates, _ = tx.update(params, tx.init(params), params, value=jnp.ones(()))

    assert updates.shape == params.shape
    assert np.isfinite(updates).all()


@pytest.mark.parametrize("name", _NAMES)
def test_card_matches_the_recipe(name):
    card = card_lib.load_card(name, _files.BASELINES)

    assert name in _recipes.RECIPES
    assert card.command == f"alphaopt train-baseline {name} runs/{name} --seed {card.seed}"
    assert card.summary == _recipes.RECIPES[name].summary
    assert card.env_steps > 0
    assert np.isfinite(card.score)


def test_pretrained_lstm_is_better_than_adam_on_quadratics():
    family = tasks.quadratics()
    key = jax.random.key(12345)

    def final(optimizer):
        def one(key):
            task_key, init_key = jax.random.split(key)
            task = family.draw(task_key)

            def step(carry, _):
                params, state = carry
                grads = jax.grad(task.loss)(params, None)
                updates, state = optimizer.update(grads, state, params)
                return (optax.apply_updates(params, updates), state), None

            params = task.init(init_key)
            (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=100)
            return task.evaluation_loss(params)

        return float(jnp.mean(jax.jit(jax.vmap(one))(jax.random.split(key, 64))))

    assert final(l2l("l2l-quadratics")) < 0.7 * final(optax.adam(0.464))
