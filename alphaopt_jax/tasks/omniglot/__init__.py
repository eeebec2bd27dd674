"""Omniglot: handwritten characters, and few-shot episodes made from them."""

from alphaopt_jax.tasks.omniglot.characters import (
    Characters,
    Omniglot,
    load_omniglot,
    synthetic_omniglot,
)
from alphaopt_jax.tasks.omniglot.episodes import (
    Episode,
    EpisodeTask,
    Protocol,
    draw_episode,
    episode_family,
    few_shot_protocol,
)

__all__ = [
    "Characters",
    "Episode",
    "EpisodeTask",
    "Omniglot",
    "Protocol",
    "draw_episode",
    "episode_family",
    "few_shot_protocol",
    "load_omniglot",
    "synthetic_omniglot",
]
