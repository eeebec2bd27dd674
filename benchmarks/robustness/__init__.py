"""Faults during a training and what is left of its progress; games whose losses rise."""
