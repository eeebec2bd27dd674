"""How Sphinx builds these pages: `sphinx-build -W --keep-going -n docs docs/_build/html`."""

from importlib import metadata
from pathlib import Path
import sys

sys.path[:0] = [
    str(Path(__file__).parent / "_extensions"),
    str(Path(__file__).parents[1]),  # For `benchmarks`, which is not installed.
]

import alphaopt_constants  # noqa: E402

project = "AlphaOpt"
author = "The AlphaOpt authors"
release = metadata.version("alphaopt-jax")
extensions = [
    "alphaopt_reference",
    "alphaopt_results",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "_extensions"]
html_theme = "furo"
html_title = f"AlphaOpt {release}"

# Notebooks are stored with their output; nothing is executed here.
nb_execution_mode = "off"
myst_enable_extensions = ["deflist", "substitution"]
myst_heading_anchors = 3
myst_substitutions = alphaopt_constants.substitutions()

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_attr_annotations = False  # Types of attributes stand in the signature.
napoleon_use_ivar = True  # Attributes are described at their class, once.
napoleon_use_rtype = False

# Nothing is downloaded while building, so there is nothing to link other projects' types to.
nitpick_ignore = [
    ("py:class", name)
    for name in (
        "PIL.Image.Image",
        "chex.Array",
        "chex.ArrayTree",
        "chex.Numeric",
        "chex.PRNGKey",
        "collections.abc.Callable",
        "collections.abc.Mapping",
        "collections.abc.Sequence",
        "flax.linen.Module",
        "flax.linen.RNNCellBase",
        "jax.Array",
        "jax.ShapeDtypeStruct",
        "jax.nn.initializers.Initializer",
        "jax.sharding.Mesh",
        "jax.typing.DTypeLike",
        "jaxtyping.Bool",
        "jaxtyping.Float",
        "jaxtyping.Float16",
        "jaxtyping.Float32",
        "jaxtyping.Int",
        "jaxtyping.Int32",
        "jaxtyping.Key",
        "jaxtyping.Shaped",
        "jaxtyping.UInt32",
        "matplotlib.axes.Axes",
        "matplotlib.axis.Axis",
        "matplotlib.figure.Figure",
        "numpy.ndarray",
        "optax.GradientTransformation",
        "optax.GradientTransformationExtraArgs",
        "optax.OptState",
        "optax.Params",
        "optax.ScalarOrSchedule",
        "optax.Updates",
        "os.PathLike",
        "pathlib.Path",
        "_P",  # These two are type variables.
        "_R",
    )
]
