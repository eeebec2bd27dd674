"""Figures depend on arrays alone, and do not change matplotlib's settings."""

import jax.numpy as jnp
import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")

from PIL import Image  # noqa: E402

from alphaopt_jax import plotting  # noqa: E402
from alphaopt_jax.tasks.landscapes import LANDSCAPES  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _unchanged_settings():
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before


def _trace(*, steps=30, rates=False, diverged=False):
    points = np.linspace((-3.0, 2.0), (0.0, 0.0), steps + 1).astype(np.float32)
    losses = np.square(points).sum(axis=1)
    if diverged:
        points[-3:], losses[-3:] = np.inf, np.nan
    learning_rates = jnp.full((steps, 2), 0.1) if rates else None
    return plotting.Trace(
        points, losses, learning_rates, jnp.linspace(1, -1, steps) if rates else None
    )


@pytest.mark.parametrize("name", LANDSCAPES)
def test_landscape_figure_has_four_panels_with_everything_in_them(name, tmp_path):
    traces = {"AlphaOpt\nfresh": _trace(rates=True), "Adam": _trace(), "SGD": _trace(diverged=True)}

    figure = plotting.landscape_figure(LANDSCAPES[name], traces, title="A title")
    plotting.save_png(figure, tmp_path / "figure.png")

    _, loss, rate, reward, _ = figure.axes
    assert figure.get_suptitle() == "A title"
    assert len(loss.lines) == 3
    np.testing.assert_allclose(rate.lines[0].get_ydata(), 0.1, rtol=1e-5)
    np.testing.assert_allclose(reward.lines[0].get_ydata(), np.linspace(1, -1, 30), atol=1e-6)
    with Image.open(tmp_path / "figure.png") as image:
        assert image.size == (1170, 1014)


def test_empty_panels_are_hidden():
    figure = plotting.landscape_figure(LANDSCAPES["bowl"], {"Adam": _trace()}, title="")

    assert [panel.axison for panel in figure.axes[:4]] == [True, True, False, False]


def test_overview_and_policy_map_are_drawn(tmp_path):
    bowl, beale = LANDSCAPES["bowl"], LANDSCAPES["beale"]
    runs = {"AlphaOpt": _trace(), "Adam": _trace()}
    rates = np.geomspace(1e-3, 1.0, 11 * 11 * 2).reshape(11, 11, 2)

    overview = plotting.overview_figure([bowl, beale], [runs, runs], ["1 | 2", "3 | 4"], title="")
    policy = plotting.policy_map_figure(bowl, rates, title="")
    plotting.save_png(overview, tmp_path / "a.png")
    plotting.save_png(policy, tmp_path / "b.png")

    np.testing.assert_allclose(policy.axes[1].images[0].get_array(), np.log10(rates[:, :, 1]))


def test_curves_show_the_mean_over_seeds():
    on, off = np.array([[100.0, 50.0], [200.0, 70.0]]), np.full((2, 2), 300.0)

    learning = plotting.learning_figure({"Bowl": (on, off)}, limit=2000, title="")
    training = plotting.training_figure(
        {"Adam": np.array([[1.0, 3.0, 5.0], [3.0, 5.0, 7.0]])},
        {"Adam": np.array([0.5, 0.7]), "SGD": np.array([0.1, 0.2])},
        np.arange(3),
        plotting.TrainingLabels(title="", x="step", curves="loss", finals="accuracy"),
        window=2,
    )

    shown = {line.get_label(): line.get_ydata() for line in learning.axes[0].lines}
    np.testing.assert_allclose(shown["AlphaOpt, from scratch"], [150.0, 60.0])
    np.testing.assert_allclose(shown["AlphaOpt, from scratch, learn=False"], 300.0)
    np.testing.assert_allclose(training.axes[0].lines[0].get_ydata(), [3.0, 5.0])
    names = [label.get_text() for label in training.axes[1].get_yticklabels()]
    assert names == ["Adam", "SGD"]


def test_accuracies_are_in_percent_and_emphasized_lines_are_thick():
    shares = np.tile(np.linspace(0.2, 0.8, 3), (5, 1)) + 0.01 * np.arange(5)[:, None]
    by_optimizer = {"AlphaOpt, other": shares, "AlphaOpt": shares + 0.1, "Adam": shares - 0.1}

    figure = plotting.accuracies_figure(
        {"one": by_optimizer, "two": by_optimizer},
        {"one": (0, 10, 20), "two": (0, 1, 2)},
        title="Learning",
        emphasized="AlphaOpt",
    )

    one, two = figure.axes
    other, ours, adam = one.lines
    np.testing.assert_allclose(adam.get_ydata(), [12.0, 42.0, 72.0])
    assert list(two.lines[0].get_xdata()) == [0, 1, 2]
    assert other.get_linewidth() == ours.get_linewidth() > adam.get_linewidth()
    assert len({line.get_color() for line in one.lines}) == 3


def test_characters_are_columns():
    drawings = np.zeros((3, 4, 28, 28))
    drawings[2, 1, 5, 6] = 1.0

    figure = plotting.characters_figure(drawings, support=2, title="An episode")

    (panel,) = figure.axes
    sheet = np.asarray(panel.images[0].get_array())
    assert sheet.shape == (4 * 32, 3 * 32)
    # Column of the third character, row of the second person, with a margin of two pixels.
    assert np.argwhere(sheet == 0.0).tolist() == [[32 + 2 + 5, 2 * 32 + 2 + 6]]


def test_animation_has_the_requested_number_of_frames(tmp_path):
    episodes = [_trace(steps=steps).points for steps in (40, 20, 10)]

    plotting.learning_animation(
        tmp_path / "film.gif",
        LANDSCAPES["bowl"],
        plotting.EpisodeHistory(episodes, [40, 20, 10], steps_without_learning=60),
        title="",
        frames_per_episode=3,
    )

    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 9
