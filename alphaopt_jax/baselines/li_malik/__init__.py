"""Optimizers learned by guided policy search (Li & Malik 2016 and 2017)."""

from alphaopt_jax.baselines.li_malik._config import (
    Config2016,
    Config2017,
    MomentumGrid,
    NoiseConfig,
    PolicyFit,
    PriorConfig,
    TrustRegion,
)
from alphaopt_jax.baselines.li_malik._guided_2016 import Result2016, train_2016
from alphaopt_jax.baselines.li_malik._guided_2017 import Result2017, train_2017
from alphaopt_jax.baselines.li_malik._policies import (
    Policy2016,
    Policy2017,
    load_2016,
    load_2017,
    save_2016,
    save_2017,
)
from alphaopt_jax.baselines.li_malik._transform import (
    LiMalik2016State,
    LiMalik2017State,
    li_malik_2016,
    li_malik_2017,
)

__all__ = [
    "Config2016",
    "Config2017",
    "LiMalik2016State",
    "LiMalik2017State",
    "MomentumGrid",
    "NoiseConfig",
    "Policy2016",
    "Policy2017",
    "PolicyFit",
    "PriorConfig",
    "Result2016",
    "Result2017",
    "TrustRegion",
    "li_malik_2016",
    "li_malik_2017",
    "load_2016",
    "load_2017",
    "save_2016",
    "save_2017",
    "train_2016",
    "train_2017",
]
