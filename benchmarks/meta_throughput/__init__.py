"""Throughput of meta-training."""
