"""Without a network, loading data takes seconds, then falls back or explains what to do."""

import socket
import time

import pytest

from alphaopt_jax.tasks import datasets


@pytest.fixture(autouse=True)
def _silent_network(monkeypatch):
    """No data is prepared, TFDS could download it, but its host accepts no connection."""
    host = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = [socket.socket() for _ in range(8)]
    for each in waiting:  # They fill the backlog; further connections get no response.
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
    assert time.monotonic() - began < 30.0  # The default timeout of TCP is two minutes.
    return result


def test_the_fallback_digits_come_with_a_warning(caplog):
    data = _takes_seconds(datasets.load_mnist)

    assert data.source == "scikit-learn digits, resized"
    assert "no network: timed out" in caplog.text
    assert "Set TFDS_DATA_DIR to use MNIST." in caplog.text


def test_without_a_fallback_the_error_says_where_to_put_the_data():
    def load():
        with pytest.raises(FileNotFoundError, match=r"'cifar10'.*timed out.*Set TFDS_DATA_DIR"):
            datasets.load_images("cifar10")

    _takes_seconds(load)
