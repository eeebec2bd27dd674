"""Two-dimensional loss landscapes.

A landscape is a pure `jax.numpy` function from a point, `float32[2]`, to a scalar, with its known
minima, a starting point and bounds for plots. Formulas are from the literature, and so is the
start if the source names one. Otherwise the start lies inside the source's domain, away from every
minimum and from every axis of symmetry, which would make the problem easier.

Sources:
  [R] H. H. Rosenbrock, "An automatic method for finding the greatest or least value of a function",
      The Computer Journal 3 (1960).
  [M] J. J. Moré, B. S. Garbow, K. E. Hillstrom, "Testing unconstrained optimization software",
      ACM Transactions on Mathematical Software 7 (1981).
  [J] M. Jamil, X.-S. Yang, "A literature survey of benchmark functions for global optimisation
      problems", Int. J. Mathematical Modelling and Numerical Optimisation 4 (2013).
  [S] S. Surjanovic, D. Bingham, "Virtual library of simulation experiments: test functions and
      datasets", https://www.sfu.ca/~ssurjano/optimization.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import math
from types import MappingProxyType
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

Kind = Literal["unimodal", "few minima", "multimodal", "special"]
Point = tuple[float, float]

_ANGLE = math.pi / 6  # Rotation of the rotated bowl; no symmetry of the coordinates.
_COSINE, _SINE = math.cos(_ANGLE), math.sin(_ANGLE)
_ROOT_HALF = math.sqrt(0.5)
_HIMMELBLAU_MINIMA = (
    (3.0, 2.0),
    (-2.8051181, 3.1313125),
    (-3.7793102, -3.2831860),
    (3.5844283, -1.8481265),
)


@dataclasses.dataclass(frozen=True)
class Landscape:
    """A function of two variables, with its minima and a starting point.

    Hashable, so that it can be a static argument of `jax.jit`.

    Attributes:
      name: Key in `LANDSCAPES`, valid as a file name.
      title: Name for figures and tables.
      function: Maps `float32[2]` to `float32[]`; pure and differentiable.
      minima: Global minima, as points `(x, y)`.
      minimum: Value at the global minima.
      start: Starting point.
      bounds: Bounds for plots, `(x_low, x_high, y_low, y_high)`.
      kind: "unimodal" and "few minima" can be solved by a local optimizer from `start`;
        "multimodal" has local minima that trap it; "special" tests one difficulty.

    Example:
      >>> bowl = LANDSCAPES["bowl"]
      >>> float(bowl(jnp.array([3.0, 4.0])))
      25.0
    """

    name: str
    title: str
    function: Callable[[Float[Array, "2"]], Float[Array, ""]]
    minima: tuple[Point, ...]
    minimum: float
    start: Point
    bounds: tuple[float, float, float, float]
    kind: Kind

    @property
    def description(self) -> str:
        """Docstring of the function: its difficulty, its formula and its source."""
        return (self.function.__doc__ or "").strip()

    def __call__(self, point: Float[Array, "2"]) -> Float[Array, ""]:
        """Returns the value at `point`, `float32[2]`, as `float32[]`."""
        return self.function(point)

    def initial_point(self) -> Float[Array, "2"]:
        """Returns the start as an array, `float32[2]`."""
        return jnp.array(self.start, jnp.float32)

    def grid(
        self, resolution: int = 201
    ) -> tuple[
        Float[np.ndarray, " {resolution}"],
        Float[np.ndarray, " {resolution}"],
        Float[np.ndarray, " {resolution} {resolution}"],
    ]:
        """Returns the values over `bounds`, for contour plots.

        Args:
          resolution: Number of points along each side.

        Returns:
          Coordinates `x` and `y`, `float32[resolution]` each, and values `z`,
          `float32[resolution, resolution]`, where `z[j, i]` is the value at `(x[i], y[j])`.
        """
        x_low, x_high, y_low, y_high = self.bounds
        x = np.linspace(x_low, x_high, resolution, dtype=np.float32)
        y = np.linspace(y_low, y_high, resolution, dtype=np.float32)
        points = jnp.stack(jnp.meshgrid(x, y), axis=-1).reshape(-1, 2)
        values = jax.jit(jax.vmap(self.function))(points)
        return x, y, np.asarray(values).reshape(resolution, resolution)


_Function: TypeAlias = Callable[[Float[Array, "2"]], Float[Array, ""]]
_landscapes: dict[str, Landscape] = {}


def _register(
    name: str,
    title: str,
    *,
    kind: Kind,
    minima: tuple[Point, ...],
    minimum: float = 0.0,
    start: Point,
    bounds: tuple[float, float, float, float],
) -> Callable[[_Function], _Function]:
    """Decorator that adds a function to `LANDSCAPES`; arguments as in `Landscape`."""

    def register(function: _Function) -> _Function:
        _landscapes[name] = Landscape(name, title, function, minima, minimum, start, bounds, kind)
        return function

    return register


def _ellipse_start(along: float, across: float) -> Point:
    """Returns the start of the rotated bowl: that of the unrotated one, rotated."""
    return (_COSINE * along - _SINE * across, _SINE * along + _COSINE * across)


@_register(
    "bowl",
    "Convex bowl",
    kind="unimodal",
    minima=((0.0, 0.0),),
    start=(-3.0, 2.0),
    bounds=(-4.0, 4.0, -4.0, 4.0),
)
def bowl(point: Float[Array, "2"]) -> Float[Array, ""]:
    """A round valley, the easiest case: x² + y². The sphere function of [J]."""
    return jnp.sum(point**2)


@_register(
    "ill_conditioned",
    "Ill-conditioned bowl",
    kind="unimodal",
    minima=((0.0, 0.0),),
    start=(-4.0, 1.0),
    bounds=(-5.0, 5.0, -1.5, 1.5),
)
def ill_conditioned_bowl(point: Float[Array, "2"]) -> Float[Array, ""]:
    """A ditch along x, condition number 1000: (x² + 1000 y²) / 2. An ellipsoid as in [J].

    No single learning rate suits both parameters: one that is stable for y is too slow for x.
    """
    x, y = point
    return 0.5 * (x**2 + 1000.0 * y**2)


@_register(
    "rotated",
    "Rotated bowl",
    kind="unimodal",
    minima=((0.0, 0.0),),
    start=_ellipse_start(-4.0, 1.0),
    bounds=(-5.0, 5.0, -4.0, 4.0),
)
def rotated_bowl(point: Float[Array, "2"]) -> Float[Array, ""]:
    """The ill-conditioned bowl rotated by 30 degrees, so that the ditch follows no axis.

    (u² + 1000 v²) / 2 with u = x cos 30° + y sin 30°, v = −x sin 30° + y cos 30°. Learning rates
    per coordinate help little here.
    """
    x, y = point
    along = _COSINE * x + _SINE * y
    across = -_SINE * x + _COSINE * y
    return 0.5 * (along**2 + 1000.0 * across**2)


@_register(
    "booth",
    "Booth",
    kind="unimodal",
    minima=((1.0, 3.0),),
    start=(-5.0, -5.0),
    bounds=(-10.0, 10.0, -10.0, 10.0),
)
def booth(point: Float[Array, "2"]) -> Float[Array, ""]:
    """A mildly stretched valley off the origin: (x + 2y − 7)² + (2x + y − 5)². [J] no. 17."""
    x, y = point
    return (x + 2.0 * y - 7.0) ** 2 + (2.0 * x + y - 5.0) ** 2


@_register(
    "rosenbrock",
    "Rosenbrock",
    kind="unimodal",
    minima=((1.0, 1.0),),
    start=(-1.2, 1.0),
    bounds=(-2.0, 2.0, -1.0, 3.0),
)
def rosenbrock(point: Float[Array, "2"]) -> Float[Array, ""]:
    """The curved, flat-bottomed canyon: (1 − x)² + 100 (y − x²)². [R]; [M] no. 1, its start."""
    x, y = point
    return (1.0 - x) ** 2 + 100.0 * (y - x**2) ** 2


@_register(
    "beale",
    "Beale",
    kind="unimodal",
    minima=((3.0, 0.5),),
    start=(1.0, 1.0),
    bounds=(-1.0, 4.5, -2.0, 2.0),
)
def beale(point: Float[Array, "2"]) -> Float[Array, ""]:
    """A flat valley between steep walls at the corners. [M] no. 5, its start.

    (1.5 − x + xy)² + (2.25 − x + xy²)² + (2.625 − x + xy³)²
    """
    x, y = point
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


@_register(
    "himmelblau",
    "Himmelblau",
    kind="few minima",
    minima=_HIMMELBLAU_MINIMA,
    start=(0.0, 0.0),
    bounds=(-5.0, 5.0, -5.0, 5.0),
)
def himmelblau(point: Float[Array, "2"]) -> Float[Array, ""]:
    """Four equally deep minima: (x² + y − 11)² + (x + y² − 7)². Himmelblau (1972); [J] no. 65."""
    x, y = point
    return (x**2 + y - 11.0) ** 2 + (x + y**2 - 7.0) ** 2


@_register(
    "three_hump_camel",
    "Three-hump camel",
    kind="few minima",
    minima=((0.0, 0.0),),
    start=(1.0, 2.0),
    bounds=(-2.5, 2.5, -2.5, 2.5),
)
def three_hump_camel(point: Float[Array, "2"]) -> Float[Array, ""]:
    """A global minimum between two local ones: 2x² − 1.05x⁴ + x⁶/6 + xy + y². [J].

    The start lies in the basin of the global one; the local ones (value 0.2986) are one jump away.
    """
    x, y = point
    return 2.0 * x**2 - 1.05 * x**4 + x**6 / 6.0 + x * y + y**2


@_register(
    "saddle",
    "Saddle",
    kind="few minima",
    minima=((0.0, _ROOT_HALF), (0.0, -_ROOT_HALF)),
    minimum=-0.25,
    start=(-1.5, 0.001),
    bounds=(-2.0, 2.0, -1.25, 1.25),
)
def saddle(point: Float[Array, "2"]) -> Float[Array, ""]:
    """A saddle bounded below: x² − y² + y⁴, started at a distance of 0.001 from the ridge y = 0.

    From the ridge itself, gradient descent converges to the origin; the minima are at y = ±1/√2.
    The time to leave the saddle tests how an optimizer uses a tiny but consistent gradient.
    """
    x, y = point
    return x**2 - y**2 + y**4


@_register(
    "plateau",
    "Plateau",
    kind="special",
    minima=((0.0, 0.0),),
    start=(-3.0, 2.5),
    bounds=(-4.0, 4.0, -4.0, 4.0),
)
def plateau(point: Float[Array, "2"]) -> Float[Array, ""]:
    """A hole in a plain: 1 − exp(−(x² + y²)/2), started where the slope is about 0.002.

    With a learning rate that suits the hole, it takes thousands of steps to reach it.
    """
    return -jnp.expm1(-0.5 * jnp.sum(point**2))  # expm1 is precise near the minimum.


@_register(
    "styblinski_tang",
    "Styblinski–Tang",
    kind="multimodal",
    minima=((-2.903534, -2.903534),),
    minimum=-78.3323314,
    start=(4.0, -1.0),
    bounds=(-5.0, 5.0, -5.0, 5.0),
)
def styblinski_tang(point: Float[Array, "2"]) -> Float[Array, ""]:
    """Four minima of different depth: Σ (z⁴ − 16z² + 5z) / 2 over z = x, y. [J] no. 144."""
    return 0.5 * jnp.sum(point**4 - 16.0 * point**2 + 5.0 * point)


@_register(
    "rastrigin",
    "Rastrigin",
    kind="multimodal",
    minima=((0.0, 0.0),),
    start=(-3.4, 2.7),
    bounds=(-5.12, 5.12, -5.12, 5.12),
)
def rastrigin(point: Float[Array, "2"]) -> Float[Array, ""]:
    """A bowl under a regular egg box: 20 + Σ (z² − 10 cos 2πz) over z = x, y. [S]."""
    return 20.0 + jnp.sum(point**2 - 10.0 * jnp.cos(2.0 * jnp.pi * point))


@_register(
    "ackley",
    "Ackley",
    kind="multimodal",
    minima=((0.0, 0.0),),
    start=(-3.4, 2.7),
    bounds=(-5.0, 5.0, -5.0, 5.0),
)
def ackley(point: Float[Array, "2"]) -> Float[Array, ""]:
    """A funnel in a dented plain, with a cusp at the minimum. [J] no. 1, [S].

    −20 exp(−0.2 √((x² + y²)/2)) − exp((cos 2πx + cos 2πy)/2) + 20 + e
    """
    mean_square = 0.5 * jnp.sum(point**2)
    # The square root has an infinite slope at 0, and 0 * inf would make the gradient NaN. Replacing
    # its argument first gives the cusp the gradient 0, one of its subgradients.
    positive = mean_square > 0.0
    root = jnp.where(positive, jnp.sqrt(jnp.where(positive, mean_square, 1.0)), 0.0)
    wave = jnp.mean(jnp.cos(2.0 * jnp.pi * point))
    return -20.0 * jnp.expm1(-0.2 * root) - (jnp.exp(wave) - math.e)


@_register(
    "goldstein_price",
    "Goldstein–Price",
    kind="multimodal",
    minima=((0.0, -1.0),),
    minimum=3.0,
    start=(1.0, 1.0),
    bounds=(-2.0, 2.0, -2.5, 1.5),
)
def goldstein_price(point: Float[Array, "2"]) -> Float[Array, ""]:
    """Values from 3 to a million within four units, four minima. [S].

    (1 + (x + y + 1)² (19 − 14x + 3x² − 14y + 6xy + 3y²)) ·
    (30 + (2x − 3y)² (18 − 32x + 12x² + 48y − 36xy + 27y²))
    """
    x, y = point
    left = 19.0 - 14.0 * x + 3.0 * x**2 - 14.0 * y + 6.0 * x * y + 3.0 * y**2
    right = 18.0 - 32.0 * x + 12.0 * x**2 + 48.0 * y - 36.0 * x * y + 27.0 * y**2
    return (1.0 + (x + y + 1.0) ** 2 * left) * (30.0 + (2.0 * x - 3.0 * y) ** 2 * right)


LANDSCAPES: Mapping[str, Landscape] = MappingProxyType(_landscapes)
"""All landscapes by name, from easy to hard. Read-only."""
