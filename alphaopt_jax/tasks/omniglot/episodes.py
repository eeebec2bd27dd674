"""Episodes of Omniglot: to learn new characters from a few drawings of each.

An episode is a task: some characters, a *support* set of drawings to train a network on, and a
*query* set of drawings by other people to try it on. Nothing of an episode is stored but which
characters, turns and people it is of; images are taken from the packed drawings where they are
needed, inside of jit.

Batch normalisation uses the statistics of the images that the network is trained on: a batch's in
training, the whole support set's on queries. Queries never see each other ("no transduction").

Sources: Vinyals et al. 2016, *Matching Networks for One Shot Learning* (few shots, and turns as
classes of their own); Flennerhag et al. 2019, *Transferring Knowledge across Learning Processes*
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
# Queries that a step of meta-training is rewarded by.
_REWARD_QUERIES = 40


class CharacterNet(nn.Module):
    """The network of the few-shot literature: four blocks, then a linear layer.

    A block is a 3x3 convolution of stride 2, batch normalisation and ReLU.

    Attributes:
      outputs: Classes.
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
          num_reference: The first so many images give batch normalisation its statistics; by
            default all of them do.

        Returns:
          `float32[N, outputs]`.
        """
        hidden = images
        for block in range(_BLOCKS):
            # A bias would be taken off again.
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
    """What an episode consists of.

    Attributes:
      name: What to call it.
      ways: Characters in an episode.
      shots: Drawings of each to train on.
      queries: Other drawings of each to try the network on.
      of_one_alphabet: Whether all characters are of one alphabet, upright. Otherwise they are of
        any, and a character turned by 90, 180 or 270 degrees is another.
      batch_size: Images in a training batch, drawn with replacement; None for the whole support
        set at every step.
    """

    name: str
    ways: int
    shots: int
    queries: int
    of_one_alphabet: bool = False
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Refuses what there are not enough drawings for."""
        if self.shots + self.queries > DRAWERS:
            raise ValueError(
                f"{self.shots} shots and {self.queries} queries of a character need more than the"
                f" {DRAWERS} drawings that there are of it."
            )


MULTI_SHOT = Protocol("20-way, multi-shot", 20, 15, 5, of_one_alphabet=True, batch_size=20)
"""20 characters of one alphabet, by 15 people to train on and 5 others."""


def few_shot(ways: int, shots: int) -> Protocol:
    """N characters of any alphabet, K drawings of each, and 15 to try the network on."""
    return Protocol(f"{ways}-way {shots}-shot", ways, shots, 15)


class Episode(NamedTuple):
    """What the images of an episode are of.

    Attributes:
      characters: `int32[N]`.
      turns: By how many quarters each is turned, `int32[N]`; None where all are upright.
      drawers: In which order to take people, `int32[N, 20]`; the first make the support set.
    """

    characters: chex.Array
    turns: chex.Array | None
    drawers: chex.Array


@dataclasses.dataclass(frozen=True)
class EpisodeTask(Task):
    """An episode as a task.

    Its evaluation loss is that of the queries, and an agent's reward the decrease of that of some
    of them: reinforcement needs no gradient of what is rewarded.

    Attributes:
      accuracy: From parameters to the share of queries that are told right, `float32[]`.
    """

    accuracy: Callable[[chex.ArrayTree], chex.Array] = dataclasses.field(kw_only=True)


def draw_episode(
    characters: Characters, protocol: Protocol, key: chex.PRNGKey, *, turned: bool = False
) -> Episode:
    """Draws an episode; may be traced.

    Args:
      characters: To draw from.
      protocol: How many, and of what.
      key: Consumed.
      turned: Whether one alphabet may be turned as a whole, as if there were four times as many.

    Raises:
      ValueError: There are not enough characters.

    Example:
      >>> import jax
      >>> from alphaopt_jax.tasks import omniglot
      >>> episode = draw_episode(omniglot.drawn().test, few_shot(5, 1), jax.random.key(0))
      >>> episode.characters.shape, episode.drawers.shape
      ((5,), (5, 20))
    """
    choose_key, alphabet_key, drawers_key = jax.random.split(key, 3)
    alphabets, counts = np.unique(characters.alphabets, return_counts=True)
    if protocol.ways > (counts.max() if protocol.of_one_alphabet else 4 * characters.number):
        raise ValueError(f"No {protocol.ways} characters for an episode of {protocol.name!r}.")
    if protocol.of_one_alphabet:
        large = jnp.asarray(alphabets[counts >= protocol.ways])
        alphabet = jax.random.choice(alphabet_key, large)
        among = jnp.asarray(characters.alphabets) == alphabet
        lots = jax.random.gumbel(choose_key, (characters.number,))
        _, chosen = jax.lax.top_k(jnp.where(among, lots, -jnp.inf), protocol.ways)
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


def look_up(characters: Characters, episode: Episode, first: int, last: int) -> Batch:
    """The drawings of an episode by some of its people.

    Args:
      characters: That the episode was drawn from.
      episode: The episode, of N characters.
      first: The first of the people, in the episode's order.
      last: One after the last of them.

    Returns:
      Images `float32[N * P, 28, 28, 1]`, character by character, and labels `int32[N * P]`.
    """
    bits = jnp.asarray(characters.bits)[episode.characters[:, None], episode.drawers[:, first:last]]
    images = _turn(unpack(bits), None if episode.turns is None else episode.turns[:, None])
    labels = jnp.repeat(jnp.arange(len(episode.characters), dtype=jnp.int32), last - first)
    return Batch(images.reshape(-1, SIZE, SIZE, 1), labels)


def episodes(
    characters: Characters,
    protocol: Protocol,
    *,
    width: int = 64,
    initial_params: chex.ArrayTree | None = None,
    rate_factors: chex.ArrayTree | None = None,
    turned: bool = False,
) -> Family:
    """The family of a protocol's episodes.

    Args:
      characters: To draw from.
      protocol: What an episode consists of.
      width: Filters of each of the network's convolutions.
      initial_params: The network's, where it is to start from what was learned; by default they
        are drawn anew in each episode.
      rate_factors: As in `Task`.
      turned: As in `draw_episode`: there is more to learn from. For meta-training.

    Returns:
      A family whose tasks are `EpisodeTask`s.

    Example:
      >>> import jax
      >>> from alphaopt_jax.tasks import omniglot
      >>> family = episodes(omniglot.drawn().training, few_shot(5, 1), width=8)
      >>> task = family.draw(jax.random.key(0))
      >>> params = task.init(jax.random.key(1))
      >>> batch = task.batch(jax.random.key(2))
      >>> batch.inputs.shape, task.accuracy(params).shape
      ((5, 28, 28, 1), ())
    """
    network = CharacterNet(protocol.ways, width)
    end = protocol.shots + protocol.queries

    def init(key: chex.PRNGKey) -> chex.ArrayTree:
        if initial_params is not None:
            return jax.tree.map(jnp.asarray, initial_params)
        return network.init(key, jnp.zeros((1, SIZE, SIZE, 1)))["params"]

    def task(episode: Episode) -> EpisodeTask:
        def support() -> Batch:
            return look_up(characters, episode, 0, protocol.shots)

        def some(key: chex.PRNGKey, size: int, first: int, last: int) -> Batch:
            """Drawings by people of this range, with replacement."""
            way_key, person_key = jax.random.split(key)
            way = jax.random.randint(way_key, (size,), 0, protocol.ways)
            person = jax.random.randint(person_key, (size,), first, last)
            drawers = episode.drawers[way, person]
            bits = jnp.asarray(characters.bits)[episode.characters[way], drawers]
            turns = None if episode.turns is None else episode.turns[way]
            return Batch(_turn(unpack(bits), turns), way)

        def batch(key: chex.PRNGKey) -> Batch:
            if protocol.batch_size is None:
                return support()
            return some(key, protocol.batch_size, 0, protocol.shots)

        def loss(params: chex.ArrayTree, batch: Batch) -> chex.Array:
            return supervised.cross_entropy(
                network.apply({"params": params}, batch.inputs), batch.targets
            )

        def tried_on(params: chex.ArrayTree, reference: chex.Array, queries: Batch) -> Batch:
            """Logits and labels."""
            images = jnp.concatenate([reference, queries.inputs])
            logits = network.apply({"params": params}, images, len(reference))
            return Batch(logits[len(reference) :], queries.targets)

        def on_queries(params: chex.ArrayTree) -> Batch:
            queries = look_up(characters, episode, protocol.shots, end)
            return tried_on(params, support().inputs, queries)

        def reward_loss(params: chex.ArrayTree, key: chex.PRNGKey) -> chex.Array:
            batch_key, query_key = jax.random.split(key)
            size = min(_REWARD_QUERIES, protocol.ways * protocol.queries)
            queries = some(query_key, size, protocol.shots, end)
            return supervised.cross_entropy(*tried_on(params, batch(batch_key).inputs, queries))

        def accuracy(params: chex.ArrayTree) -> chex.Array:
            logits, labels = on_queries(params)
            return jnp.mean(jnp.argmax(logits, axis=-1) == labels)

        return EpisodeTask(
            name=protocol.name,
            init=init,
            batch=batch,
            loss=loss,
            evaluation_loss=lambda params: supervised.cross_entropy(*on_queries(params)),
            reward_loss=reward_loss,
            rate_factors=rate_factors,
            accuracy=accuracy,
        )

    def sample(key: chex.PRNGKey) -> Episode:
        return draw_episode(characters, protocol, key, turned=turned)

    return Family(protocol.name, sample, task)


def _turn(images: chex.Array, turns: chex.Array | None) -> chex.Array:
    """Turns `float32[..., 28, 28, 1]` by `int32[...]` quarters, counterclockwise."""
    if turns is None:
        return images

    def where(chosen: chex.Array, changed: chex.Array, images: chex.Array) -> chex.Array:
        return jnp.where(chosen[..., None, None, None], changed, images)

    images = where(turns % 2 == 1, jnp.swapaxes(images, -3, -2), images)
    images = where((turns == 1) | (turns == 2), jnp.flip(images, -3), images)
    return where(turns >= 2, jnp.flip(images, -2), images)
