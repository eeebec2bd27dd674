"""The old name of `python -m benchmarks.online_learning`, which keeps working for this version."""

import runpy

if __name__ == "__main__":
    runpy.run_module("benchmarks.online_learning", run_name="__main__", alter_sys=True)
