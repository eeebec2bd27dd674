"""Omniglot: its characters, and few-shot episodes made from them."""
