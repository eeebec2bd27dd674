"""Pretrained agents and baselines, each with a card that says how it was trained."""
