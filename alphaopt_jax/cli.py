"""The command line: `alphaopt agents`, `evaluate`, and what trains every optimizer that ships."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import importlib
import inspect
import pathlib
import sys
from typing import Annotated, Any, Literal

import jax
import optax
from rich import console as rich_console
from rich import progress as rich_progress
from rich import table as rich_table
import tyro

from alphaopt_jax import evaluation
from alphaopt_jax._agent import agent
from alphaopt_jax.pretrained import card as card_lib

_CONSOLE = rich_console.Console()


@dataclasses.dataclass(frozen=True)
class Agents:
    """List the shipped agents, or show the card of one.

    Attributes:
      name: Whose card to show; by default all agents are listed.
    """

    name: Annotated[str | None, tyro.conf.Positional] = None


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Run optimizers over tasks and print the table of their final losses.

    Attributes:
      optimizers: As `module:function`, called with `num_steps=` if it takes that, or with literal
        arguments: "optax:adam(1e-3)", "alphaopt_jax:alphaopt", "mine:make(beta=0.9)".
      tasks: Names of tasks of the suite or of the validation families; by default the suite's
        cheap ones.
      horizons: Numbers of steps.
      seeds: Runs of each.
    """

    optimizers: Annotated[tuple[str, ...], tyro.conf.Positional]
    tasks: tuple[str, ...] = ()
    horizons: tuple[int, ...] = (200,)
    seeds: int = 3


@dataclasses.dataclass(frozen=True)
class MetaTrain:
    """Train an agent over a distribution of tasks; run it again to go on where it stopped.

    Attributes:
      folder: Where checkpoints, the history and the best agent go.
      rounds: Rounds of meta-training.
      seed: Of everything random.
      method: How to train.
      families: Names of the families to train on; by default all.
      max_horizon: Longest episode, in steps; horizons are drawn log-uniformly from 50 to this.
      one_device: Run on one device; by default the population is shared among all, and on a CPU
        among its cores.
    """

    folder: Annotated[pathlib.Path, tyro.conf.Positional]
    rounds: int = 300
    seed: int = 0
    method: Literal["ppo", "openai_es", "persistent_es"] = "ppo"
    families: tuple[str, ...] = ()
    max_horizon: int = 5000
    one_device: bool = False


@dataclasses.dataclass(frozen=True)
class TrainBaseline:
    """Train another learned optimizer of the field; run it again to go on where it stopped.

    Attributes:
      name: Which, such as "l2l-mnist"; a wrong one lists them.
      folder: Where checkpoints, the optimizer and its card go.
      seed: Of everything random.
    """

    name: Annotated[str, tyro.conf.Positional]
    folder: Annotated[pathlib.Path, tyro.conf.Positional]
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class TrainFewShot:
    """Train an agent for few drawings of new characters; run it again to go on where it stopped.

    Attributes:
      name: Which, such as "omniglot-learned"; a wrong one lists them.
      folder: Where checkpoints, the agent, its card and initial parameters go.
      seed: Of everything random.
    """

    name: Annotated[str, tyro.conf.Positional]
    folder: Annotated[pathlib.Path, tyro.conf.Positional]
    seed: int = 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
      arguments: What was typed after `alphaopt`; by default this process's own arguments.
    """
    command = tyro.extras.subcommand_cli_from_dict(
        {
            "agents": Agents,
            "evaluate": Evaluate,
            "meta-train": MetaTrain,
            "train-baseline": TrainBaseline,
            "train-few-shot": TrainFewShot,
        },
        prog="alphaopt",
        description="AlphaOpt: an optimizer that is a reinforcement-learning agent.",
        args=arguments,
    )
    run: Mapping[type, Callable[[Any], None]] = {
        Agents: _agents,
        Evaluate: _evaluate,
        MetaTrain: _meta_train,
        TrainBaseline: _train_baseline,
        TrainFewShot: _train_few_shot,
    }
    try:
        run[type(command)](command)
    except (ValueError, FileNotFoundError, MemoryError) as error:
        sys.exit(f"alphaopt: {error}")
    except ModuleNotFoundError as error:
        sys.exit(f'alphaopt: {error}. This command needs: pip install "alphaopt-jax[meta]"')


def parse_optimizer(text: str) -> evaluation.HorizonFactory:
    """From `module:function` or `module:function(literals)` to a function of the number of steps.

    Raises:
      ValueError: It cannot be read, or names nothing that can be called.

    Example:
      >>> adam = parse_optimizer("optax:adam(learning_rate=1e-3)")(200)
      >>> adam.init is not None
      True
    """
    module, colon, call = text.partition(":")
    if not colon or not call:
        raise ValueError(f"{text!r} is not of the form module:function, such as optax:adam(1e-3).")
    try:
        parsed = ast.parse(call, mode="eval").body
        name, positional, keywords = _read_call(parsed)
        function: Any = importlib.import_module(module)
        for part in name.split("."):
            function = getattr(function, part)
    except (SyntaxError, ImportError, AttributeError) as error:
        raise ValueError(f"Cannot make an optimizer of {text!r}: {error}.") from error

    def make(num_steps: int) -> optax.GradientTransformation:
        given = dict(keywords)
        if "num_steps" in inspect.signature(function).parameters:
            given.setdefault("num_steps", num_steps)
        return function(*positional, **given)

    return make


def _read_call(node: ast.expr) -> tuple[str, list[Any], dict[str, Any]]:
    if not isinstance(node, ast.Call):
        return ast.unparse(node), [], {}
    positional = [ast.literal_eval(each) for each in node.args]
    keywords = {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
    return ast.unparse(node.func), positional, keywords


def _agents(command: Agents) -> None:
    if command.name is None:
        table = rich_table.Table("agent", "summary", "hours of training")
        for name in agent.pretrained_agents():
            card = card_lib.load_card(name)
            table.add_row(name, card.summary, f"{card.hours:g}")
        _CONSOLE.print(table)
        return
    table = rich_table.Table("", command.name, show_lines=True)
    for field, value in dataclasses.asdict(card_lib.load_card(command.name)).items():
        if isinstance(value, Mapping):
            value = "\n".join(f"{name} {each}" for name, each in value.items())
        elif isinstance(value, list | tuple):
            value = "\n".join(value)
        table.add_row(field.replace("_", " "), str(value))
    _CONSOLE.print(table)


def _evaluate(command: Evaluate) -> None:
    from alphaopt_jax.tasks.families import distribution
    from alphaopt_jax.tasks.suite import catalog

    optimizers = {text: parse_optimizer(text) for text in command.optimizers}
    known = {name: each.family for name, each in {**catalog.SUITE, **catalog.LARGE}.items()}
    known |= distribution.validation_families()
    names = command.tasks or [name for name, each in catalog.SUITE.items() if each.cheap]
    unknown = sorted(set(names) - known.keys())
    if unknown:
        raise ValueError(f"No task has the name {', '.join(unknown)}; there are {sorted(known)}.")
    table = rich_table.Table("task", "steps", "optimizer", "training loss", "evaluation loss")
    total = len(names) * len(command.horizons) * len(optimizers)
    with rich_progress.Progress(console=_CONSOLE) as progress:
        bar = progress.add_task("evaluating", total=total)

        def add(row: evaluation.Row) -> None:
            table.add_row(
                row.task,
                str(row.num_steps),
                row.optimizer,
                f"{row.train_loss:.4g}",
                f"{row.evaluation_loss:.4g}",
            )
            progress.advance(bar)

        evaluation.evaluate(
            optimizers,
            [known[name] for name in names],
            command.horizons,
            range(command.seeds),
            on_row=add,
        )
    _CONSOLE.print(table)


def _meta_train(command: MetaTrain) -> None:
    from alphaopt_jax import meta
    from alphaopt_jax.meta import _devices as devices
    from alphaopt_jax.meta import evolution, ppo
    from alphaopt_jax.tasks.families import distribution

    config = meta.MetaConfig(max_horizon=command.max_horizon)
    members = config.groups * config.copies
    if not command.one_device:
        devices.split_cpu(members)
    families = distribution.training_families()
    unknown = sorted(set(command.families) - families.keys())
    if unknown:
        raise ValueError(
            f"No family has the name {', '.join(unknown)}; there are {sorted(families)}."
        )
    if command.method == "persistent_es":  # Of whole episodes it would learn as OpenAI-ES does.
        config = dataclasses.replace(config, rollout_length=8, rollouts_per_episode=4)
    if command.method == "ppo":
        method = ppo.ppo(config)
    else:
        method = evolution.evolution(config, command.method)
    if jax.config.jax_compilation_cache_dir is None:
        # What is compiled outlasts the process, so that a run that is begun again goes on at once.
        jax.config.update("jax_compilation_cache_dir", str(command.folder / "compiled"))
    result = meta.meta_train(
        {name: families[name] for name in command.families or families},
        schedule=meta.Schedule(num_rounds=command.rounds),
        config=config,
        method=method,
        seed=command.seed,
        options=meta.RunOptions(
            folder=command.folder,
            mesh=None if command.one_device else devices.all_devices_mesh(members),
        ),
    )
    if jax.process_index() == 0:
        # Soft wraps: a path that is cut by a line break cannot be copied.
        _CONSOLE.print(
            f"Best score {result.score:.3f}. The agent is {command.folder / 'agent.safetensors'}:"
            " use it with alphaopt(agent=...).",
            soft_wrap=True,
        )


def _train_baseline(command: TrainBaseline) -> None:
    from alphaopt_jax.baselines import _recipes

    card = _recipes.train_baseline(command.name, command.folder, seed=command.seed)
    path = command.folder / f"{card.name}.safetensors"
    _CONSOLE.print(f"Score {card.score:g}. The optimizer is {path}.", soft_wrap=True)


def _train_few_shot(command: TrainFewShot) -> None:
    from alphaopt_jax.meta.few_shot import recipes
    from alphaopt_jax.pretrained import training

    card = training.train_pretrained(
        recipes.RECIPES,
        command.name,
        command.folder,
        what="few-shot agent",
        command="train-few-shot",
        seed=command.seed,
    )
    path = command.folder / f"{card.name}.safetensors"
    _CONSOLE.print(
        f"Accuracy {1.0 - card.score:.1%}. The agent is {path}: use it with alphaopt(agent=...).",
        soft_wrap=True,
    )
