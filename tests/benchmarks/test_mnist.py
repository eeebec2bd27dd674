"""The MNIST benchmark: its rows, claims, page and picture, from made-up runs."""

import pytest

from benchmarks.mnist import optimizers, plots, report, runs

_LOSSES = {
    "AlphaOpt": 0.006,
    "AlphaOpt, no horizon": 0.007,
    "Adam 0.003": 0.018,
    "cosine Adam 0.001": 0.008,
    "Adam 0.1": 2.3,
}


def _run(seed, loss):
    return runs.Run(seed, 52, [2.0, loss], loss, 2.0 * loss, 0.99, 1.0, interrupted=False)


@pytest.fixture(name="found")
def _found():
    return {
        spec.name: [_run(seed, _LOSSES.get(spec.name, 0.03)) for seed in range(2)]
        for spec in optimizers.FULL
    }


@pytest.fixture(name="rows")
def _rows(found):
    return [report.summarize(spec, found[spec.name]) for spec in optimizers.FULL]


def test_names_are_those_of_all_tables():
    names = [spec.name for spec in optimizers.FULL]

    assert names[:6] == [
        "AlphaOpt",
        "AlphaOpt, no horizon",
        "AlphaOpt, from scratch",
        "AlphaOpt, from scratch, learn=False",
        "AlphaOpt, from scratch, learning_rate=0.01",
        "AlphaOpt, from scratch, learning_rate=100",
    ]
    assert len(set(names)) == len(names)


def test_claims_compare_with_tuned_rivals(rows):
    claims = {claim.name: claim for claim in report.make_claims(rows)}

    assert claims["mnist.pretrained_tuned_adam"].value == pytest.approx(0.006 / 0.018)
    assert "Adam 0.003" in claims["mnist.pretrained_tuned_adam"].text
    cosine = claims["mnist.pretrained_tuned_cosine_adam"]
    assert (cosine.value, cosine.bar) == (pytest.approx(0.006 / 0.008), "<= 1")
    assert "cosine Adam 0.001" in cosine.text
    assert claims["mnist.told.train_loss"].holds
    assert not claims["mnist.untold.train_loss"].holds
    assert not claims["mnist.told.test_accuracy"].holds
    assert claims["mnist.start_too_large"].value == pytest.approx(0.03 / 2.3)


def test_page_and_picture_show_the_tuned_cosine_adam(found, rows, tmp_path):
    plots.write(found, rows, tmp_path / "mnist.png", "MNIST")

    assert "cosine Adam 0.001" in plots.pictured(rows)
    assert "| cosine Adam 0.001 | a rate, number of steps | 99.00 ± 0.00 |" in report.page(
        rows, 3, 2
    )
    assert (tmp_path / "mnist.png").exists()


def test_a_picture_is_drawn_before_any_adam_was_run(found, tmp_path):
    spec = optimizers.ALPHAOPT
    rows = [report.summarize(spec, found[spec.name])]

    plots.write({spec.name: found[spec.name]}, rows, tmp_path / "mnist.png", "MNIST")

    assert plots.pictured(rows) == ["AlphaOpt"]


def test_stored_runs_are_not_made_again(monkeypatch, tmp_path):
    made = []

    def train(spec, data, *, seed, epochs, on_progress=None):
        del data, epochs, on_progress
        made.append((spec.name, seed))
        return _run(seed, 0.5)

    monkeypatch.setattr(runs, "train", train)
    data = type("Data", (), {"source": "MNIST (TFDS)"})()
    specs = [optimizers.ALPHAOPT, optimizers.ADAM]

    found = [
        runs.run_all(specs, data, 3, 2, runs.open_store(tmp_path / "runs.jsonl")) for _ in range(2)
    ]

    assert len(made) == 4
    assert found[0] == found[1]
