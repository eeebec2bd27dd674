"""An animation of an agent that learns over repeated episodes on one landscape."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np
from PIL import Image

from alphaopt_jax.plotting._style import COLORS, palette, rendered, styled, tidy_log_axis
from alphaopt_jax.plotting.landscapes import draw_terrain
from alphaopt_jax.tasks.landscapes import Landscape


class EpisodeHistory(NamedTuple):
    """Repeated episodes of one agent on one landscape.

    Attributes:
      paths: For each episode, the points visited, `float32[T + 1, 2]`; T may differ.
      steps: For each episode, the number of steps to the minimum.
      steps_without_learning: Number of steps that the agent needs with `learn=False`.
    """

    paths: Sequence[np.ndarray]
    steps: Sequence[float]
    steps_without_learning: float


@styled
def learning_animation(
    path: str | Path,
    landscape: Landscape,
    history: EpisodeHistory,
    *,
    title: str,
    frames_per_episode: int = 8,
    milliseconds: int = 90,
) -> None:
    """Writes a GIF of an agent that learns over repeated episodes on one landscape.

    On the left are the paths, the current one bold and earlier ones faded; on the right the number
    of steps of each episode.

    Args:
      path: Path of the GIF.
      landscape: Landscape to minimize.
      history: Paths and numbers of steps.
      title: Title of the animation.
      frames_per_episode: Frames per episode, in which its path grows.
      milliseconds: Duration of a frame.
    """
    paths, steps, steps_without_learning = history
    figure = Figure(figsize=(7.6, 3.9), layout="constrained", dpi=115)
    figure.suptitle(title)
    terrain, curve = figure.subplots(1, 2, width_ratios=(1.5, 1.0))
    draw_terrain(terrain, landscape)
    color = COLORS["AlphaOpt"]
    curve.axhline(steps_without_learning, color=COLORS["Adam"], ls="--", lw=1.4)
    curve.annotate(
        "learn=False",
        (0.98, steps_without_learning),
        (0, 4),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        color=COLORS["Adam"],
    )
    low, high = (choose(*steps, steps_without_learning) for choose in (min, max))
    curve.set(xlim=(0.4, len(steps) + 0.6), ylim=(0.7 * low, 1.4 * high))
    curve.set(yscale="log", xlabel="episode", title="Steps to the minimum")
    tidy_log_axis(curve.yaxis)
    curve.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    (dots,) = curve.plot([], [], "o-", color=color, ms=4.5, lw=1.2)
    frames = []
    for number, points in enumerate(paths, start=1):
        (line,) = terrain.plot([], [], color=color, lw=2.2, zorder=4)
        (head,) = terrain.plot([], [], "o", color=color, mec="white", ms=7, zorder=6)
        terrain.set_title(f"Episode {number}")
        for end in np.linspace(1, len(points), frames_per_episode, dtype=int):
            line.set_data(*points[:end].T)
            head.set_data(*points[end - 1 : end].T)
            if end == len(points):
                dots.set_data(range(1, number + 1), steps[:number])
            frames.append(rendered(figure))
        head.remove()
        line.set(alpha=0.18, lw=1.0, zorder=3)
    # One palette for all frames avoids flicker, and unchanged pixels take no space in the file.
    colors = palette(frames[-1])
    images = [frame.quantize(palette=colors, dither=Image.Dither.NONE) for frame in frames]
    durations = [milliseconds] * (len(images) - 1) + [3000]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0)
