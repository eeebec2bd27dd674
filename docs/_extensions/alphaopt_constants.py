"""Constants of the package and measured figures for the pages; no page states them by hand."""

from __future__ import annotations

from alphaopt_jax import config, meta
from alphaopt_jax._agent import agent, observation
from alphaopt_jax.pretrained import card as card_lib
from benchmarks.common import results


def _items(lines: tuple[str, ...]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def substitutions() -> dict[str, str]:
    """Maps each `{{ name }}` on a page to its text."""
    fresh, given = config.AlphaOptConfig(), config.pretrained_config()
    training, schedule = meta.rotated_config(), meta.Schedule()
    base, card = agent.load_agent("base"), card_lib.load_card("base")
    numbers = {
        "contract_version": observation.CONTRACT_VERSION,
        "min_rms": given.min_rms,
        "relative_step": given.relative_step,
        "max_relative_step": given.max_relative_step,
        "max_learning_rate": round(given.max_relative_step / given.relative_step, 2),
        "gradient_decay": given.gradient_decay,
        "squared_gradient_decay": given.squared_gradient_decay,
        "refresh_interval": given.refresh_interval,
        "fresh_max_log_rate": fresh.agent.max_log_rate,
        "pretrained_max_log_rate": base.max_log_rate,
        "fresh_inverse_sqrt_steps": fresh.agent.inverse_sqrt_steps,
        "pretrained_inverse_sqrt_steps": base.inverse_sqrt_steps,
        "fresh_num_explorers": fresh.learning.num_explorers,
        "pretrained_num_explorers": given.learning.num_explorers,
        "action_std": given.learning.action_std,
        "rollout_length": given.learning.rollout_length,
        "kl_weight": given.learning.kl_weight,
        "clip_epsilon": given.learning.ppo.clip_epsilon,
        "discount": given.learning.ppo.discount,
        "num_training_families": len(card.trained_on),
        "num_selection_families": len(card.selected_on),
        "meta_intervals_per_rollout": training.intervals_per_rollout,
        "meta_leaf_discount": training.leaf_discount,
        "meta_leaf_gae_lambda": training.leaf_gae_lambda,
        "meta_copies": training.copies,
        "meta_min_horizon": training.min_horizon,
        "meta_max_horizon": training.max_horizon,
        "meta_unknown_horizon_fraction": training.unknown_horizon_fraction,
        "meta_validation_horizons": " and ".join(map(str, schedule.validation_horizons)),
    }
    lists = {
        "coordinate_features": observation.COORDINATE_FEATURES,
        "context_features": observation.CONTEXT_FEATURES,
        "history_features": observation.HISTORY_FEATURES,
        "weaknesses": card.weaknesses,
    }
    texts = {
        name: f"{number:g}" if isinstance(number, float) else str(number)
        for name, number in numbers.items()
    }
    return texts | {name: _items(tuple(lines)) for name, lines in lists.items()} | _figures()


def _figures() -> dict[str, str]:
    """Figures of the results files, by the names of their claims."""
    values = {claim["name"]: claim["value"] for claim in results.read_claims()}
    shares = {
        "share_below_tuned_adam": "zero_tuning.wins.tuned_adam",
        "share_below_tuned_adam_no_horizon": "zero_tuning.no_horizon.wins.tuned_adam",
        "share_below_tuned_cosine_adam": "zero_tuning.wins.tuned_cosine",
    }
    ratios = {
        "loss_ratio_to_tuned_adam": "zero_tuning.ratio",
        "long_run_ratio": "zero_tuning.length",
        "learn_ratio_100_too_small": "online_learning.pretrained.times_0.01",
        "learn_ratio_10_too_small": "online_learning.pretrained.times_0.1",
        "step_cost": "cost.times_adam.parameters",
        "step_cost_learn": "cost.times_adam.learn",
        "step_cost_from_scratch": "cost.times_adam.from_scratch",
        "train_step_mnist": "cost.mnist",
        "train_step_transformer": "cost.transformer",
        "train_step_large_batches": "cost.large_batches",
        "train_step_small_batches": "cost.small_batches",
        "state_bytes": "cost.state.parameters",
        "state_bytes_rotated": "cost.state.told",
        "state_bytes_average": "cost.state.untold",
        "compile_resnet": "cost.compile.resnet",
        "compile_small_leaves": "cost.compile.small_leaves",
    }
    return {name: _percent(values[claim]) for name, claim in shares.items()} | {
        name: f"{values[claim]:.3g}" for name, claim in ratios.items()
    }
