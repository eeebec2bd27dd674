"""Few-shot episodes of Omniglot: learning new characters from a few drawings of each.

An episode is a task: a set of characters, a *support* set of drawings for training, and a *query*
set of drawings by other people for evaluation. An episode stores only the indices of its
characters, rotations and people; images are unpacked when needed, inside jit.

Batch normalization uses statistics of training images only: of the batch in training, of the whole
support set on queries. Queries do not influence one another ("non-transductive").

Sources: Vinyals et al. 2016, *Matching Networks for One Shot Learning* (few shots, and rotations
as additional classes); Flennerhag et al. 2019, *Transferring Knowledge across Learning Processes*
(many shots, one alphabet).
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax.tasks import networks
from alphaopt_jax.tasks.families import supervised
from alphaopt_jax.tasks.families.supervised import Batch
from alphaopt_jax.tasks.omniglot.characters import DRAWERS, SIZE, Characters, unpack
from alphaopt_jax.tasks.task import Family, Task

_BLOCKS = 4
_EPSILON = 1e-5
# Number of queries in the reward of a meta-training step.
_REWARD_QUERIES = 40


class CharacterNet(nn.Module):
    """The network of the few-shot literature: four blocks, then a linear layer.

    A block is a 3x3 convolution of stride 2, batch normalization and ReLU.

    Attributes:
      outputs: Number of classes.
      width: Filters of each convolution; 64 in the literature.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> network = CharacterNet(outputs=5, width=8)
      >>> params = network.init(jax.random.key(0), jnp.ones((2, 28, 28, 1)))
      >>> network.apply(params, jnp.ones((7, 28, 28, 1))).shape
      (7, 5)
    """

    outputs: int
    width: int = 64

    @nn.compact
    def __call__(self, images: chex.Array, num_reference: int | None = None) -> chex.Array:
        """Computes logits.

        Args:
          images: `float32[N, 28, 28, 1]`.
          num_reference: Number of leading images from which batch normalization takes its
            statistics; by default all N.

        Returns:
          Logits, `float32[N, outputs]`.
        """
        hidden = images
        for block in range(_BLOCKS):
            # No bias: the normalization would cancel it.
            kernel = self.param(
                f"convolution_{block}",
                nn.initializers.he_normal(),
                (3, 3, hidden.shape[-1], self.width),
            )
            hidden = networks.convolve(hidden, kernel, stride=2)
            reference = hidden[:num_reference]
            mean = jnp.mean(reference, axis=(0, 1, 2))
            variance = jnp.var(reference, axis=(0, 1, 2))
            scale = self.param(f"scale_{block}", nn.initializers.ones, (self.width,))
            shift = self.param(f"shift_{block}", nn.initializers.zeros, (self.width,))
            hidden = nn.relu((hidden - mean) * jax.lax.rsqrt(variance + _EPSILON) * scale + shift)
        return nn.Dense(self.outputs, name="logits")(hidden.reshape(hidden.shape[0], -1))


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Composition of an episode.

    Attributes:
      name: Name for tables.
      ways: Characters per episode.
      shots: Training drawings per character.
      queries: Query drawings per character.
      of_one_alphabet: Whether all characters belong to one alphabet and are upright. Otherwise
        they come from any alphabet, and a character rotated by 90, 180 or 270 degrees is a class
        of its own.
      batch_size: Images per training batch, drawn with replacement; None for the whole support
        set at every step.
    """

    name: str
    ways: int
    shots: int
    queries: int
    of_one_alphabet: bool = False
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError if a character has too few drawings."""
        if self.shots + self.queries > DRAWERS:
            raise ValueError(
                f"{self.shots} shots and {self.queries} queries per character need more than the"
                f" {DRAWERS} drawings that each character has."
            )


MULTI_SHOT = Protocol("20-way, multi-shot", 20, 15, 5, of_one_alphabet=True, batch_size=20)
"""20 characters of one alphabet, drawn by 15 people for training and by 5 others for queries."""


def few_shot_protocol(ways: int, shots: int) -> Protocol:
    """Returns the N-way K-shot protocol: N characters of any alphabet, each with 15 queries."""
    return Protocol(f"{ways}-way {shots}-shot", ways, shots, 15)


class Episode(NamedTuple):
    """Indices of the characters and drawings of an episode with N characters.

    Attributes:
      characters: Index of each character, `int32[N]`.
      turns: Rotation of each character in quarter turns, `int32[N]`; None if all are upright.
      drawers: Permutation of the people for each character, `int32[N, 20]`; the first of them make
        the support set.
    """

    characters: chex.Array
    turns: chex.Array | None
    drawers: chex.Array


@dataclasses.dataclass(frozen=True)
class EpisodeTask(Task):
    """An episode as a task.

    The evaluation loss is the loss of the queries. An agent's reward is the decrease of the loss
    of a random sample of queries, which reinforcement learning needs no gradient of.

    Attributes:
      accuracy: Maps parameters to the share of queries classified correctly, `float32[]`.
    """

    accuracy: Callable[[chex.ArrayTree], chex.Array] = dataclasses.field(kw_only=True)


def draw_episode(
    characters: Characters, protocol: Protocol, key: chex.PRNGKey, *, turned: bool = False
) -> Episode:
    """Draws an episode; may be traced.

    Args:
      characters: Characters to draw from.
      protocol: Composition of the episode.
      key: Consumed.
      turned: Whether to rotate an episode of one alphabet as a whole by a random number of quarter
        turns, which augments the data fourfold.

    Raises:
      ValueError: There are too few characters.

    Example:
      >>> import jax
      >>> from alphaopt_jax.tasks import omniglot
      >>> characters = omniglot.synthetic_omniglot().test
      >>> episode = draw_episode(characters, few_shot_protocol(5, 1), jax.random.key(0))
      >>> episode.characters.shape, episode.drawers.shape
      ((5,), (5, 20))
    """
    choose_key, alphabet_key, drawers_key = jax.random.split(key, 3)
    alphabets, counts = np.unique(characters.alphabets, return_counts=True)
    if protocol.ways > (counts.max() if protocol.of_one_alphabet else 4 * characters.number):
        raise ValueError(
            f"Too few characters for an episode of {protocol.name!r}: it needs {protocol.ways}."
        )
    if protocol.of_one_alphabet:
        large = jnp.asarray(alphabets[counts >= protocol.ways])
        alphabet = jax.random.choice(alphabet_key, large)
        is_member = jnp.asarray(characters.alphabets) == alphabet
        # Gumbel noise and the top k draw without replacement.
        noise = jax.random.gumbel(choose_key, (characters.number,))
        _, chosen = jax.lax.top_k(jnp.where(is_member, noise, -jnp.inf), protocol.ways)
        turns = None
        if turned:
            turn = jax.random.randint(jax.random.fold_in(alphabet_key, 1), (), 0, 4)
            turns = jnp.full(protocol.ways, turn)
    else:
        classes = jax.random.choice(
            choose_key, 4 * characters.number, (protocol.ways,), replace=False
        )
        chosen, turns = classes // 4, (classes % 4).astype(jnp.int32)
    order = jnp.tile(jnp.arange(DRAWERS), (protocol.ways, 1))
    drawers = jax.random.permutation(drawers_key, order, axis=1, independent=True)
    return Episode(chosen.astype(jnp.int32), turns, drawers.astype(jnp.int32))


def select_drawings(characters: Characters, episode: Episode, first: int, last: int) -> Batch:
    """Returns an episode's drawings by a range of its people.

    Args:
      characters: Characters that the episode was drawn from.
      episode: Episode with N characters.
      first: Index of the first of P people, in the episode's order.
      last: Index after the last of them.

    Returns:
      Images `float32[N * P, 28, 28, 1]`, sorted by character, and labels `int32[N * P]`.
    """
    bits = jnp.asarray(characters.bits)[episode.characters[:, None], episode.drawers[:, first:last]]
    images = _turn(unpack(bits), None if episode.turns is None else episode.turns[:, None])
    labels = jnp.repeat(jnp.arange(len(episode.characters), dtype=jnp.int32), last - first)
    return Batch(images.reshape(-1, SIZE, SIZE, 1), labels)


def episode_family(
    characters: Characters,
    protocol: Protocol,
    *,
    width: int = 64,
    initial_params: chex.ArrayTree | None = None,
    rate_factors: chex.ArrayTree | None = None,
    turned: bool = False,
) -> Family:
    """Returns the family of a protocol's episodes.

    Args:
      characters: Characters to draw from.
      protocol: Composition of the episodes.
      width: Filters of each of the network's convolutions.
      initial_params: Initial parameters of the network; by default drawn anew in each episode.
      rate_factors: As in `Task`.
      turned: As in `draw_episode`; augments the data for meta-training.

    Returns:
      A family whose tasks are `EpisodeTask`s.

    Example:
      >>> import jax
      >>> from alphaopt_jax.tasks import omniglot
      >>> characters = omniglot.synthetic_omniglot().training
      >>> family = episode_family(characters, few_shot_protocol(5, 1), width=8)
      >>> task = family.draw(jax.random.key(0))
      >>> params = task.init(jax.random.key(1))
      >>> batch = task.batch(jax.random.key(2))
      >>> batch.inputs.shape, task.accuracy(params).shape
      ((5, 28, 28, 1), ())
    """
    network = CharacterNet(protocol.ways, width)

    def init(key: chex.PRNGKey) -> chex.ArrayTree:
        if initial_params is not None:
            return jax.tree.map(jnp.asarray, initial_params)
        return network.init(key, jnp.zeros((1, SIZE, SIZE, 1)))["params"]

    def sample(key: chex.PRNGKey) -> Episode:
        return draw_episode(characters, protocol, key, turned=turned)

    def task(episode: Episode) -> EpisodeTask:
        functions = _EpisodeFunctions(network, characters, protocol, episode)
        return EpisodeTask(
            name=protocol.name,
            init=init,
            batch=functions.batch,
            loss=functions.loss,
            evaluation_loss=functions.evaluation_loss,
            reward_loss=functions.reward_loss,
            rate_factors=rate_factors,
            accuracy=functions.accuracy,
        )

    return Family(protocol.name, sample, task)


class _EpisodeFunctions(NamedTuple):
    """Batches and losses of one episode."""

    network: CharacterNet
    characters: Characters
    protocol: Protocol
    episode: Episode

    def batch(self, key: chex.PRNGKey) -> Batch:
        """Returns a training batch. Consumes `key`."""
        if self.protocol.batch_size is None:
            return self._support()
        return self._draw(key, self.protocol.batch_size, 0, self.protocol.shots)

    def loss(self, params: chex.ArrayTree, batch: Batch) -> chex.Array:
        """Returns the training loss, `float32[]`."""
        return supervised.cross_entropy(
            self.network.apply({"params": params}, batch.inputs), batch.targets
        )

    def evaluation_loss(self, params: chex.ArrayTree) -> chex.Array:
        """Returns the loss of all queries, `float32[]`."""
        return supervised.cross_entropy(*self._query_logits(params))

    def reward_loss(self, params: chex.ArrayTree, key: chex.PRNGKey) -> chex.Array:
        """Returns the loss of a sample of queries, `float32[]`. Consumes `key`."""
        protocol = self.protocol
        batch_key, query_key = jax.random.split(key)
        size = min(_REWARD_QUERIES, protocol.ways * protocol.queries)
        queries = self._draw(query_key, size, protocol.shots, self._end)
        return supervised.cross_entropy(
            *self._logits(params, self.batch(batch_key).inputs, queries)
        )

    def accuracy(self, params: chex.ArrayTree) -> chex.Array:
        """Returns the share of queries classified correctly, `float32[]`."""
        logits, labels = self._query_logits(params)
        return jnp.mean(jnp.argmax(logits, axis=-1) == labels)

    @property
    def _end(self) -> int:
        return self.protocol.shots + self.protocol.queries

    def _support(self) -> Batch:
        return select_drawings(self.characters, self.episode, 0, self.protocol.shots)

    def _draw(self, key: chex.PRNGKey, size: int, first: int, last: int) -> Batch:
        """Draws `size` drawings by a range of people, with replacement."""
        way_key, person_key = jax.random.split(key)
        way = jax.random.randint(way_key, (size,), 0, self.protocol.ways)
        person = jax.random.randint(person_key, (size,), first, last)
        drawers = self.episode.drawers[way, person]
        bits = jnp.asarray(self.characters.bits)[self.episode.characters[way], drawers]
        turns = None if self.episode.turns is None else self.episode.turns[way]
        return Batch(_turn(unpack(bits), turns), way)

    def _logits(self, params: chex.ArrayTree, reference: chex.Array, queries: Batch) -> Batch:
        """Returns logits and labels of queries, normalized by the `reference` images."""
        images = jnp.concatenate([reference, queries.inputs])
        logits = self.network.apply({"params": params}, images, len(reference))
        return Batch(logits[len(reference) :], queries.targets)

    def _query_logits(self, params: chex.ArrayTree) -> Batch:
        queries = select_drawings(self.characters, self.episode, self.protocol.shots, self._end)
        return self._logits(params, self._support().inputs, queries)


def _turn(images: chex.Array, turns: chex.Array | None) -> chex.Array:
    """Rotates `float32[..., 28, 28, 1]` by `int32[...]` quarter turns counterclockwise."""
    if turns is None:
        return images

    def where(chosen: chex.Array, changed: chex.Array, images: chex.Array) -> chex.Array:
        return jnp.where(chosen[..., None, None, None], changed, images)

    images = where(turns % 2 == 1, jnp.swapaxes(images, -3, -2), images)
    images = where((turns == 1) | (turns == 2), jnp.flip(images, -3), images)
    return where(turns >= 2, jnp.flip(images, -2), images)
