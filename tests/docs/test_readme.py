"""The README says what the results files say, and its commands are where newcomers look."""

import re

from benchmarks import readme


def test_tables_are_those_of_the_results_files():
    text = readme.README.read_text()
    assert readme.render(text) == text


def test_first_two_shell_blocks_are_the_main_job_and_the_tests():
    blocks = re.findall(r"```bash\n(.*?)```", readme.README.read_text(), re.DOTALL)
    assert "benchmarks.mnist" in blocks[0]
    assert "pytest" in blocks[1]
