"""The command line: `agents`, `evaluate`, and the error messages of wrong arguments."""

import pytest

from alphaopt_jax import cli
from alphaopt_jax._agent.agent import load_agent, pretrained_agents
from alphaopt_jax.pretrained import load_card
from alphaopt_jax.pretrained._files import AGENTS


def test_agents_are_listed_and_their_cards_shown(capsys):
    cli.main(["agents"])
    listed = capsys.readouterr().out
    cli.main(["agents", "base"])
    shown = capsys.readouterr().out

    assert "base" in listed
    assert "weaknesses" in shown
    assert "trained on" in shown


@pytest.mark.parametrize("name", pretrained_agents())
def test_every_pretrained_agent_loads_is_small_and_has_a_card(name):
    card = load_card(name)

    agent = load_agent(name)

    assert agent.network.actor_hidden <= 16  # It determines the cost per parameter.
    path = AGENTS / f"{name}.safetensors"
    assert path.stat().st_size < 1_000_000
    assert card.name == name
    assert card.weaknesses
    assert card.results
    assert not set(card.trained_on) & set(card.selected_on)
    if not name.startswith("omniglot"):  # Agents trained for Omniglot only.
        for family in (*card.trained_on, *card.selected_on):
            assert "mnist" not in family.lower()
            assert "omniglot" not in family.lower()


def test_an_unknown_agent_is_refused(capsys):
    with pytest.raises(SystemExit, match=r"No pretrained optimizer 'none'"):
        cli.main(["agents", "none"])


@pytest.mark.parametrize(
    "text", ["optax:adam(1e-2)", "optax:adam(learning_rate=1e-2)", "alphaopt_jax:alphaopt"]
)
def test_optimizers_are_read(text):
    optimizer = cli.parse_optimizer(text)(100)

    assert callable(optimizer.init)


@pytest.mark.parametrize(
    "text",
    ["adam", "optax:", "optax:no_such_thing", "no_such_module:adam", "optax:adam(open('x'))"],
)
def test_invalid_optimizers_are_refused(text):
    with pytest.raises(ValueError, match=r"module:function|is not an optimizer|malformed"):
        cli.parse_optimizer(text)(100)


def test_evaluate_prints_a_table(capsys):
    cli.main(
        [
            "evaluate",
            "optax:adam(1e-2)",
            "optax:sgd(0.1)",
            "--tasks",
            "wide_linear_regression",
            "--horizons",
            "5",
            "--seeds",
            "2",
        ]
    )

    table = capsys.readouterr().out
    assert "optax:sgd(0.1)" in table
    assert "wide_linear" in table


def test_evaluate_names_unknown_tasks():
    with pytest.raises(SystemExit, match=r"No task has the name nothing"):
        cli.main(["evaluate", "optax:adam(1e-2)", "--tasks", "nothing"])


def test_meta_train_names_unknown_families(tmp_path):
    with pytest.raises(SystemExit, match=r"No family has the name nothing"):
        cli.main(["meta-train", str(tmp_path), "--families", "nothing"])
