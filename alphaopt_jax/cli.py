"""The command line `alphaopt`: list agents, evaluate optimizers, and train learned optimizers."""

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
from alphaopt_jax.config import CoordinateSystem
from alphaopt_jax.pretrained.card import load_card

_CONSOLE = rich_console.Console()


@dataclasses.dataclass(frozen=True)
class Agents:
    """List the pretrained agents, or show the card of one.

    Attributes:
      name: Agent whose card to show; by default all agents are listed.
    """

    name: Annotated[str | None, tyro.conf.Positional] = None


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Train with several optimizers on several tasks, and print a table of the final losses.

    Attributes:
      optimizers: Each as `module:function` or with literal arguments, such as "optax:adam(1e-3)",
        "alphaopt_jax:alphaopt" or "my_module:my_optimizer(beta=0.9)". A function with a parameter
        `num_steps` is called with the number of steps.
      tasks: Names of tasks of the suite or of validation families; by default the cheap tasks of
        the suite.
      horizons: Numbers of steps.
      seeds: Number of runs of each optimizer and task.
    """

    optimizers: Annotated[tuple[str, ...], tyro.conf.Positional]
    tasks: tuple[str, ...] = ()
    horizons: tuple[int, ...] = (200,)
    seeds: int = 3


@dataclasses.dataclass(frozen=True)
class MetaTrain:
    """Meta-train an agent on a distribution of tasks; the same command resumes a stopped run.

    Attributes:
      folder: Folder for checkpoints, the history and the best agent.
      rounds: Rounds of meta-training.
      seed: Random seed.
      method: Method of meta-training.
      families: Names of the training families; by default all.
      coordinates: What the agent acts on: leaves in rotated coordinates, or parameters one by one.
      max_horizon: Longest episode in steps; horizons are drawn log-uniformly from 50 to this. By
        default 3000, in the parameters' coordinates 5000.
      validate_every: Rounds between validations; the agent with the best score is kept.
      one_device: Run on one device; by default tasks are distributed over all devices, on a CPU
        over its cores.
    """

    folder: Annotated[pathlib.Path, tyro.conf.Positional]
    rounds: int = 300
    seed: int = 0
    method: Literal["ppo", "openai_es", "persistent_es"] = "ppo"
    families: tuple[str, ...] = ()
    coordinates: CoordinateSystem = "rotated"
    max_horizon: int | None = None
    validate_every: int = 50
    one_device: bool = False


@dataclasses.dataclass(frozen=True)
class TrainBaseline:
    """Train a learned optimizer of the literature; the same command resumes a stopped run.

    Attributes:
      name: Name of the baseline, such as "l2l-mnist"; an unknown name lists all of them.
      folder: Folder for checkpoints, the optimizer and its card.
      seed: Random seed.
    """

    name: Annotated[str, tyro.conf.Positional]
    folder: Annotated[pathlib.Path, tyro.conf.Positional]
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class TrainFewShot:
    """Train an agent for few-shot learning on Omniglot; the same command resumes a stopped run.

    Attributes:
      name: Name of the agent, such as "omniglot-learned"; an unknown name lists all of them.
      folder: Folder for checkpoints, the agent, its card and its initial parameters.
      seed: Random seed.
    """

    name: Annotated[str, tyro.conf.Positional]
    folder: Annotated[pathlib.Path, tyro.conf.Positional]
    seed: int = 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
      arguments: Arguments after `alphaopt`; by default those of this process.
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
    """Parses `module:function` or `module:function(literals)`.

    Returns:
      A function that maps the number of steps to the optimizer.

    Raises:
      ValueError: The text is malformed, or there is no such function.

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
        raise ValueError(f"{text!r} is not an optimizer: {error}.") from error

    def optimizer_fn(num_steps: int) -> optax.GradientTransformation:
        arguments = dict(keywords)
        if "num_steps" in inspect.signature(function).parameters:
            arguments.setdefault("num_steps", num_steps)
        return function(*positional, **arguments)

    return optimizer_fn


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
            card = load_card(name)
            table.add_row(name, card.summary, f"{card.hours:g}")
        _CONSOLE.print(table)
        return
    table = rich_table.Table("", command.name, show_lines=True)
    for field, value in dataclasses.asdict(load_card(command.name)).items():
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
        raise ValueError(
            f"No task has the name {', '.join(unknown)}; the names are {sorted(known)}."
        )
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

    config = meta.rotated_config() if command.coordinates == "rotated" else meta.MetaConfig()
    if command.max_horizon is not None:
        config = dataclasses.replace(config, max_horizon=command.max_horizon)
    members = config.groups * config.copies
    if not command.one_device:
        devices.split_cpu(members)
    families = distribution.training_families()
    unknown = sorted(set(command.families) - families.keys())
    if unknown:
        raise ValueError(
            f"No family has the name {', '.join(unknown)}; the names are {sorted(families)}."
        )
    if command.method == "persistent_es":  # With whole episodes, this is OpenAI-ES.
        config = dataclasses.replace(config, intervals_per_rollout=8, rollouts_per_episode=4)
    if command.method == "ppo":
        method = ppo.ppo(config)
    else:
        method = evolution.evolution(config, command.method)
    if jax.config.jax_compilation_cache_dir is None:
        # A persistent compilation cache, so that a resumed run need not compile again.
        jax.config.update("jax_compilation_cache_dir", str(command.folder / "compiled"))
    result = meta.meta_train(
        {name: families[name] for name in command.families or families},
        schedule=meta.Schedule(command.rounds, command.validate_every),
        config=config,
        method=method,
        seed=command.seed,
        options=meta.RunOptions(
            folder=command.folder,
            mesh=None if command.one_device else devices.all_devices_mesh(members),
        ),
    )
    if jax.process_index() == 0:
        # Soft wraps, so that a path can be copied.
        _CONSOLE.print(
            f"Best score {result.score:.3f}. The agent is {command.folder / 'agent.safetensors'};"
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
        f"Accuracy {1.0 - card.score:.1%}. The agent is {path}; use it with alphaopt(agent=...).",
        soft_wrap=True,
    )
