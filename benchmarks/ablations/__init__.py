"""Ablations: what is lost without each part of the pretrained agent. See `__main__`."""
