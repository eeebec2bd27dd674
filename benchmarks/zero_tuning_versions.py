"""The old name of `python -m benchmarks.zero_tuning.versions`, which keeps working for now."""

import runpy

if __name__ == "__main__":
    runpy.run_module("benchmarks.zero_tuning.versions", run_name="__main__", alter_sys=True)
