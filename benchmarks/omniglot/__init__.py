"""Omniglot: few-shot learning with a pretrained optimizer."""
