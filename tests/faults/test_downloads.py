"""A network that does not answer costs seconds, and then what can be done instead is named."""

import socket
import time

import pytest

from alphaopt_jax.tasks import datasets


@pytest.fixture(autouse=True)
def _silent_network(monkeypatch):
    """Nothing is prepared, TFDS could download, and its host accepts no connection."""
    host = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = [socket.socket() for _ in range(8)]
    for each in waiting:  # Once so many wait to be accepted, whoever comes next hears nothing.
        each.setblocking(False)
        each.connect_ex(host.getsockname())
    monkeypatch.setattr(datasets, "_DOWNLOAD_HOST", host.getsockname())
    monkeypatch.setattr(datasets, "prepared_folders", lambda data_dir=None: [])
    monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda name: name)
    yield
    for each in (*waiting, host):
        each.close()


def _takes_seconds(load):
    began = time.monotonic()
    result = load()
    assert time.monotonic() - began < 30.0  # TCP itself would try for two minutes.
    return result


def test_other_digits_are_used_and_it_is_said_how_to_get_the_real_ones(caplog):
    data = _takes_seconds(datasets.load_mnist)

    assert data.source == "scikit-learn digits, resized"
    assert "no network: timed out" in caplog.text
    assert "Set TFDS_DATA_DIR to use the real one." in caplog.text


def test_where_nothing_else_will_do_it_is_said_where_to_put_the_data():
    def load():
        with pytest.raises(FileNotFoundError, match=r"'cifar10'.*timed out.*Set TFDS_DATA_DIR"):
            datasets.load_images("cifar10")

    _takes_seconds(load)
