"""An animation of an agent that meets the same landscape again and again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np
from PIL import Image

from alphaopt_jax.plotting._style import COLORS, palette, rendered, styled, tidy_log_axis
from alphaopt_jax.plotting.landscapes import draw_terrain
from alphaopt_jax.tasks.landscapes import Landscape


@styled
def learning_animation(
    path: str | Path,
    landscape: Landscape,
    episodes: Sequence[np.ndarray],
    steps: Sequence[float],
    *,
    steps_without_learning: float,
    title: str,
    frames_per_episode: int = 8,
    milliseconds: int = 90,
) -> None:
    """Writes a GIF of an agent that meets the same landscape again and again.

    Left the paths, this episode's bold and earlier ones faded; right the steps that each took.

    Args:
      path: Where to write.
      landscape: What is minimised.
      episodes: For each episode the points visited, `float32[T + 1, 2]`; T may differ.
      steps: For each episode the steps needed.
      steps_without_learning: What the same agent needs with learning switched off.
      title: What the animation shows.
      frames_per_episode: Pictures of each episode as its path grows.
      milliseconds: How long each is shown.
    """
    figure = Figure(figsize=(7.6, 3.9), layout="constrained", dpi=115)
    figure.suptitle(title)
    terrain, curve = figure.subplots(1, 2, width_ratios=(1.5, 1.0))
    draw_terrain(terrain, landscape)
    color = COLORS["AlphaOpt"]
    curve.axhline(steps_without_learning, color=COLORS["Adam"], ls="--", lw=1.4)
    curve.annotate(
        "learning off",
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
    for number, points in enumerate(episodes, start=1):
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
    # One palette for all frames: no flicker, and pixels that stay equal cost the file nothing.
    colors = palette(frames[-1])
    images = [frame.quantize(palette=colors, dither=Image.Dither.NONE) for frame in frames]
    durations = [milliseconds] * (len(images) - 1) + [3000]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0)
