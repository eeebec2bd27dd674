"""Pretrained agents and baselines: their weights, their cards, and how to train them again."""

from alphaopt_jax.pretrained.card import Card, load_card, write_card
from alphaopt_jax.pretrained.training import Recipe, TrainingResult, train_pretrained

__all__ = ["Card", "Recipe", "TrainingResult", "load_card", "train_pretrained", "write_card"]
