"""Families of small tasks for meta-training and validation."""
