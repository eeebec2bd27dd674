"""Shared style of all figures: fonts, colors, and bands over several seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import functools
from pathlib import Path
import re
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
import numpy as np
from PIL import Image, ImageColor

_P = ParamSpec("_P")
_R = TypeVar("_R")

COLORS = {
    "AlphaOpt": "#D55E00",
    "Adam": "#0072B2",
    "momentum": "#009E73",
    "SGD": "#CC79A7",
}
_OTHER_COLORS = (
    "#56B4E9",
    "#E69F00",
    "#5B4A9E",
    "#8C6D31",
    "#A3B82E",
    "#7F7F7F",
    "#17445E",
    "#000000",
    "#8E1B3A",
    "#F28CB1",
    "#00B3A4",
    "#B5651D",
    "#3E7D2A",
    "#B39CD9",
)
INK, FAINT, STAR = "#222222", "#8A8A8A", "#F0C419"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "legend.frameon": False,
    "figure.dpi": 130,
    "savefig.dpi": 130,
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
}


def styled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorator that runs a function under this module's style, without changing the global one."""

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with matplotlib.rc_context(_STYLE):
            return function(*args, **kwargs)

    return wrapped


def new_figure(size: tuple[float, float], title: str) -> Figure:
    """Returns an empty figure of `size` inches with constrained layout."""
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title)
    return figure


def save_png(figure: Figure, path: str | Path) -> None:
    """Saves a figure as a PNG with 256 colors, a third of the usual size.

    Args:
      figure: Figure to save.
      path: Path of the PNG.
    """
    image = rendered(figure)
    quantized = image.quantize(palette=palette(image), dither=Image.Dither.NONE)
    quantized.save(path, format="png", optimize=True)


def rendered(figure: Figure) -> Image.Image:
    """Returns the figure as an RGB image."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3].copy())


def palette(image: Image.Image) -> Image.Image:
    """Returns the best palette of 256 colors for an image, for `Image.quantize`.

    The quantizer weights colors by area and would lose the colors of small markers. The named
    colors are therefore painted beside the image first, and set to their exact values afterwards.
    """
    colors = ["white", INK, STAR, *COLORS.values()]
    side = image.height // len(colors)
    source = Image.new("RGB", (image.width + side, image.height))
    source.paste(image)
    for row, color in enumerate(colors):
        source.paste(color, (image.width, row * side, image.width + side, (row + 1) * side))
    result = source.quantize(256, kmeans=1)
    entries = np.array(result.getpalette()).reshape(-1, 3)
    for color in colors:
        exact = np.array(ImageColor.getrgb(color))
        distance = np.square(entries - exact).sum(axis=1)
        # Pillow quantizes the lookup to steps of four, so no other entry may be that close.
        entries[(distance == distance.min()) | (distance < 150)] = exact
    result.putpalette(entries.ravel().tolist())
    return result


def color_of(name: str, names: Mapping[str, Any]) -> str:
    """Returns the color of an optimizer in a figure that shows all of `names`.

    The first name that begins with "AlphaOpt" or "Adam" (such as "Adam, tuned") has the same color
    in every figure; other names get the next unused color.
    """
    colors = {}
    for family, color in COLORS.items():
        members = [each for each in names if re.match(rf"{family}\b", each)]
        if members:
            colors[members[0]] = color
    others = [each for each in names if each not in colors]
    colors |= {each: _OTHER_COLORS[i % len(_OTHER_COLORS)] for i, each in enumerate(others)}
    return colors[name]


def tidy_log_axis(axis: Axis) -> None:
    """Labels a logarithmic axis with plain numbers if it spans less than about two decades."""
    low, high = axis.get_view_interval()
    axis.set_minor_locator(NullLocator())
    if low > 0 and high < 80 * low:
        axis.set_major_locator(
            LogLocator(subs=(1, 2, 5) if high > 4 * low else (1, 1.5, 2, 3, 5, 7))
        )
        axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))


def band(
    panel: Axes,
    x: np.ndarray,
    values: np.ndarray,
    color: str,
    label: str,
    *,
    ls: str = "-",
    lw: float = 1.8,
) -> None:
    """Draws the mean over S of `values`, `float[S, T]`, as a line, and their range as a shade."""
    panel.fill_between(x, values.min(axis=0), values.max(axis=0), color=color, alpha=0.18, lw=0)
    panel.plot(x, values.mean(axis=0), color=color, lw=lw, ls=ls, label=label)
