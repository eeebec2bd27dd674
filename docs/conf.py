"""Sphinx configuration. To build: `sphinx-build -W --keep-going -n docs docs/_build/html`."""

from importlib import metadata
from pathlib import Path
import sys

sys.path[:0] = [
    str(Path(__file__).parent / "_extensions"),
    str(Path(__file__).parents[1]),  # `benchmarks` is not installed.
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

# Notebooks are stored with their output and not executed.
nb_execution_mode = "off"
myst_enable_extensions = ["deflist", "substitution"]
myst_heading_anchors = 3
myst_substitutions = alphaopt_constants.substitutions()

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_attr_annotations = False  # The signature shows the types of attributes.
napoleon_use_ivar = True  # Attributes are described once, in their class.
napoleon_use_rtype = False

# The build needs no network, so types of other projects cannot be linked. Types of private modules
# are not documented.
nitpick_ignore_regex = [(r"py:.*", r"alphaopt_jax\.(\w+\.)*_\w+(\.\w+)*")]
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
        "_P",  # Type variables.
        "_R",
    )
]
