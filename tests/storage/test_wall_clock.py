"""The time of a training is summed over all of its sessions, including killed ones."""

import json
import time

import pytest

from alphaopt_jax._storage import wall_clock


def test_sessions_add_up(tmp_path):
    path = tmp_path / "time.json"
    path.write_text(json.dumps({"seconds": 100.0, "sessions": 2}))

    with wall_clock.Stopwatch(path) as watch:
        time.sleep(0.2)

    assert watch.sessions == 3
    assert 100.2 <= watch.seconds < 110.0
    kept = json.loads(path.read_text())
    assert kept == {"seconds": pytest.approx(watch.seconds, abs=0.1), "sessions": 3}


def test_it_is_written_while_it_runs(tmp_path):
    path = tmp_path / "time.json"

    with wall_clock.Stopwatch(path, interval=0.05):
        time.sleep(0.5)
        seen = json.loads(path.read_text())

    assert seen["seconds"] > 0.0


def test_an_error_stops_it_and_propagates(tmp_path):
    path = tmp_path / "time.json"

    with pytest.raises(KeyboardInterrupt), wall_clock.Stopwatch(path):
        raise KeyboardInterrupt

    assert json.loads(path.read_text())["sessions"] == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seconds": "x", "sessions": 1}'])
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "time.json"
    path.write_text(content)

    with pytest.raises(ValueError, match="is damaged"):
        wall_clock.Stopwatch(path)
