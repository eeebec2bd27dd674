"""Shared by all benchmarks: results files, intervals, schedules, stores of finished runs."""
