"""What all benchmarks share: results files, statistics, stores of finished runs."""
