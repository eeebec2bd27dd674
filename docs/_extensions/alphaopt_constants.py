"""The constants that the pages name, read from the package, so that no page can be out of date."""

from __future__ import annotations

from alphaopt_jax import config, meta
from alphaopt_jax._agent import agent, observation
from alphaopt_jax.pretrained import card as card_lib


def _items(names: tuple[str, ...]) -> str:
    return "\n".join(f"- {name}" for name in names)


def substitutions() -> dict[str, str]:
    """What `{{ name }}` becomes on a page."""
    fresh, given = config.AlphaOptConfig(), config.adaptive_config()
    training, schedule = meta.MetaConfig(), meta.Schedule()
    base, card = agent.load_agent("base"), card_lib.load_card("base")
    numbers = {
        "contract_version": observation.CONTRACT_VERSION,
        "minimum_scale": given.minimum_scale,
        "relative_step": given.relative_step,
        "max_relative_step": given.max_relative_step,
        "largest_multiplier": round(given.max_relative_step / given.relative_step, 2),
        "decision_interval": given.decision_interval,
        "fresh_max_log_rate": fresh.max_log_rate,
        "base_max_log_rate": base.max_log_rate,
        "fresh_anytime_steps": fresh.anytime_steps,
        "base_anytime_steps": base.anytime_steps,
        "fresh_num_explorers": fresh.num_explorers,
        "given_num_explorers": given.num_explorers,
        "exploration": given.exploration,
        "rollout_length": given.rollout_length,
        "given_prior_weight": given.prior_weight,
        "clip": given.clip,
        "discount": given.discount,
        "num_training_families": len(card.trained_on),
        "num_selection_families": len(card.selected_on),
        "meta_rollout_length": training.rollout_length,
        "meta_leaf_discount": training.leaf_discount,
        "meta_leaf_gae_decay": training.leaf_gae_decay,
        "meta_copies": training.copies,
        "meta_min_horizon": training.min_horizon,
        "meta_max_horizon": training.max_horizon,
        "meta_unknown_horizon": training.unknown_horizon,
        "meta_validation_horizons": " and ".join(map(str, schedule.validation_horizons)),
    }
    lists = {
        "coordinate_features": observation.COORDINATE_FEATURES,
        "context_features": observation.CONTEXT_FEATURES,
        "memory_features": observation.MEMORY_FEATURES,
    }
    texts = {
        name: f"{number:g}" if isinstance(number, float) else str(number)
        for name, number in numbers.items()
    }
    return texts | {name: _items(names) for name, names in lists.items()}
