"""Pure functions from arrays to matplotlib figures.

Requires matplotlib: `pip install matplotlib`. Figures are created without `pyplot`, so no global
state changes and no window opens; save one with `save_png(figure, path)` or
`figure.savefig(path)`. Colors are the color-blind safe palette of Okabe and Ito.
"""

from alphaopt_jax.plotting._style import save_png
from alphaopt_jax.plotting.agents import (
    meta_training_figure,
    policy_slices_figure,
    rates_figure,
)
from alphaopt_jax.plotting.animation import EpisodeHistory, learning_animation
from alphaopt_jax.plotting.few_shot import accuracies_figure, characters_figure
from alphaopt_jax.plotting.landscapes import (
    Trace,
    draw_terrain,
    landscape_figure,
    overview_figure,
    policy_map_figure,
)
from alphaopt_jax.plotting.training import (
    TrainingLabels,
    learning_figure,
    panels_figure,
    training_figure,
)

__all__ = [
    "EpisodeHistory",
    "Trace",
    "TrainingLabels",
    "accuracies_figure",
    "characters_figure",
    "draw_terrain",
    "landscape_figure",
    "learning_animation",
    "learning_figure",
    "meta_training_figure",
    "overview_figure",
    "panels_figure",
    "policy_map_figure",
    "policy_slices_figure",
    "rates_figure",
    "save_png",
    "training_figure",
]
