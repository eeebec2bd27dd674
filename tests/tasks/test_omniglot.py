"""Omniglot: its sources, its splits, and its episodes."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alphaopt_jax.tasks import datasets
from alphaopt_jax.tasks.omniglot import characters as characters_lib
from alphaopt_jax.tasks.omniglot import episodes as episodes_lib
from alphaopt_jax.tasks.omniglot._synthetic import draw_characters
from alphaopt_jax.tasks.omniglot.characters import Characters

pytestmark = pytest.mark.slow

_HAVE_OMNIGLOT = any((folder / "omniglot").is_dir() for folder in datasets.prepared_folders())
_FEW = episodes_lib.few_shot_protocol(5, 1)


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    """Each test has its own cache, separate from the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    characters_lib._load.cache_clear()
    yield
    characters_lib._load.cache_clear()


def _characters(count=12, alphabets=3, seed=0):
    """Random drawings, all different."""
    bits = np.random.default_rng(seed).integers(0, 256, (count, 20, 98), np.uint8)
    return Characters(bits, np.repeat(np.arange(alphabets, dtype=np.int32), count // alphabets))


def _as_tfds(monkeypatch, paper):
    """Simulates a prepared data set of 7 background and 2 evaluation alphabets in mixed order."""
    rng = np.random.default_rng(0)

    def examples(alphabets):
        made = []
        for number, alphabet in enumerate(alphabets):
            for drawer in range(20):
                image = np.full((105, 105, 3), paper, np.uint8)
                image[5 * number : 5 * number + 8, 5 * drawer : 5 * drawer + 8] = 0
                made.append({"image": image, "alphabet": alphabet, "alphabet_char_id": 0})
        return [made[index] for index in rng.permutation(len(made))]

    class Source(list):
        def __getitems__(self, indices):
            return [self[index] for index in indices]

    def data_source(name, *, split, data_dir, download):
        assert (name, download) == ("omniglot", False)
        del data_dir
        alphabets = {"train": range(0, 14, 2), "test": range(1, 4, 2)}
        return Source(examples(alphabets[split]))

    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds, "data_source", data_source)


@pytest.fixture(name="prepared")
def _prepared(monkeypatch, tmp_path):
    (tmp_path / "tfds" / "omniglot").mkdir(parents=True)
    monkeypatch.setattr(datasets, "prepared_folders", lambda data_dir=None: [tmp_path / "tfds"])
    return tmp_path / "tfds"


@pytest.mark.parametrize("paper", [1, 255])
def test_ink_does_not_depend_on_the_png_decoder(monkeypatch, prepared, paper):
    _as_tfds(monkeypatch, paper)

    data = characters_lib.load_omniglot()

    assert data.source.startswith("Omniglot (TFDS")
    assert data.test.bits.shape == (2, 20, 98)
    images = np.asarray(characters_lib.unpack(data.test.bits))[..., 0]
    assert images.max() == 1.0
    # Squares of 8 of 105 pixels, at rows that depend on the character.
    np.testing.assert_allclose(images.mean(axis=(2, 3)), (8 / 105) ** 2, atol=0.006)
    assert images[0].sum(axis=(0, 2)).argmax() < images[1].sum(axis=(0, 2)).argmax()


def test_every_sixth_background_alphabet_is_for_validation(monkeypatch, prepared):
    _as_tfds(monkeypatch, 1)

    data = characters_lib.load_omniglot()

    assert data.training.alphabets.tolist() == [0, 2, 4, 6, 8, 12]
    assert data.validation.alphabets.tolist() == [10]
    assert data.test.alphabets.tolist() == [1, 3]


def test_the_second_load_reads_the_cache(monkeypatch, prepared, caplog):
    _as_tfds(monkeypatch, 1)
    first = characters_lib.load_omniglot()
    monkeypatch.delattr("tensorflow_datasets.data_source")
    characters_lib._load.cache_clear()

    second = characters_lib.load_omniglot()

    assert "cached" in second.source
    jax.tree.map(np.testing.assert_array_equal, first[:3], second[:3])
    assert not caplog.records


def test_a_damaged_cache_is_written_again(monkeypatch, prepared, tmp_path, caplog):
    _as_tfds(monkeypatch, 1)
    cache = tmp_path / "cache" / "alphaopt_jax" / characters_lib._CACHE_NAME
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"PK\x03\x04 and then nothing")

    data = characters_lib.load_omniglot()

    assert data.source.startswith("Omniglot (TFDS")
    assert "damaged" in caplog.text
    assert characters_lib._read_cache(cache) is not None


def test_a_cache_that_cannot_be_written_is_ignored(monkeypatch, prepared, tmp_path):
    _as_tfds(monkeypatch, 1)
    (tmp_path / "cache").write_text("a file where a folder should be")

    assert characters_lib.load_omniglot().test.number == 2


def test_without_data_and_network_characters_are_synthetic(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(datasets, "prepared_folders", lambda data_dir=None: [tmp_path])
    monkeypatch.setattr(datasets, "download_obstacle", lambda: "no network: test")

    with caplog.at_level(logging.WARNING):
        data = characters_lib.load_omniglot()

    assert data.source == "synthetic characters"
    assert "synthetic characters" in caplog.text
    assert not (tmp_path / "cache").exists()


def test_a_given_folder_without_omniglot_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No prepared Omniglot.*omniglot/3\.0\.0"):
        characters_lib.load_omniglot(tmp_path)


def test_synthetic_drawings_differ_less_within_a_character():
    drawings = draw_characters(0, 2, characters=6, drawers=5).astype(np.float32)

    assert 0.02 < drawings.mean() < 0.3
    blurred = drawings.reshape(12, 5, 7, 4, 7, 4).mean(axis=(3, 5)).reshape(12, 5, -1)
    means = blurred.mean(axis=1)
    within = np.linalg.norm(blurred - means[:, None], axis=-1)
    between = np.linalg.norm(means[:, None] - means[None], axis=-1)
    assert within.min() > 0.0
    assert within.mean() < 0.7 * between[~np.eye(12, dtype=bool)].mean()


@pytest.mark.parametrize("data", ["synthetic", "omniglot"])
def test_splits_share_no_character_in_any_rotation(data):
    if data == "omniglot" and not _HAVE_OMNIGLOT:
        pytest.skip("Omniglot is not on this machine.")
    load = {
        "synthetic": characters_lib.synthetic_omniglot,
        "omniglot": characters_lib.load_omniglot,
    }
    parts = load[data]()[:3]
    seen = set()
    for part in parts:
        turned = {
            np.rot90(image, quarters).tobytes()
            for character in np.unpackbits(part.bits, axis=-1).reshape(-1, 20, 28, 28)[:, :4]
            for image in character
            for quarters in range(4)
        }
        assert not seen & turned
        seen |= turned
    if data == "omniglot":
        assert [part.number for part in parts] == [806, 158, 659]
        alphabets = [set(part.alphabets.tolist()) for part in parts]
        assert [len(each) for each in alphabets] == [25, 5, 20]
        assert len(set.union(*alphabets)) == 50


def test_support_and_queries_are_by_different_people():
    characters = _characters()
    episode = episodes_lib.draw_episode(characters, _FEW, jax.random.key(0))

    support = episodes_lib.select_drawings(characters, episode, 0, 1)
    queries = episodes_lib.select_drawings(characters, episode, 1, 16)

    assert support.inputs.shape == (5, 28, 28, 1)
    assert support.targets.tolist() == [0, 1, 2, 3, 4]
    assert queries.inputs.shape == (75, 28, 28, 1)
    assert queries.targets.tolist() == np.repeat(range(5), 15).tolist()
    everything = np.concatenate([support.inputs, queries.inputs]).reshape(80, -1)
    assert len(np.unique(everything, axis=0)) == 80
    np.testing.assert_array_equal(np.sort(episode.drawers), np.tile(np.arange(20), (5, 1)))


def test_rotated_characters_are_classes_of_their_own():
    characters = _characters(count=3)
    whole = episodes_lib.Protocol("all", 12, 1, 1)
    episode = episodes_lib.draw_episode(characters, whole, jax.random.key(0))

    pairs = {(int(a), int(b)) for a, b in zip(episode.characters, episode.turns, strict=True)}
    assert pairs == {(character, turn) for character in range(3) for turn in range(4)}
    images = episodes_lib.select_drawings(characters, episode, 0, 1).inputs
    for image, character, turn, drawers in zip(images, *episode, strict=True):
        drawing = np.unpackbits(characters.bits[character, drawers[0]]).reshape(28, 28)
        np.testing.assert_array_equal(image[..., 0], np.rot90(drawing, int(turn)))


def test_multi_shot_episodes_have_one_upright_alphabet():
    characters = _characters(count=60, alphabets=3)
    characters = characters._replace(alphabets=np.repeat([4, 6, 9], [10, 25, 25]).astype(np.int32))

    def draw(key):
        return episodes_lib.draw_episode(characters, episodes_lib.MULTI_SHOT, key)

    episodes = jax.vmap(draw)(jax.random.split(jax.random.key(0), 20))

    alphabets = characters.alphabets[episodes.characters]
    assert {tuple(set(row.tolist())) for row in alphabets} == {(6,), (9,)}
    assert all(len(set(row.tolist())) == 20 for row in np.asarray(episodes.characters))
    assert episodes.turns is None


def test_an_alphabet_may_be_rotated_as_a_whole():
    characters = _characters(count=60, alphabets=3)

    def draw(key):
        protocol = episodes_lib.MULTI_SHOT
        return episodes_lib.draw_episode(characters, protocol, key, turned=True)

    turns = np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(0), 40)).turns)

    assert np.all(turns == turns[:, :1])
    assert set(turns[:, 0]) == {0, 1, 2, 3}


def test_batches_come_from_the_support_set():
    characters = _characters(count=60, alphabets=2)
    family = episodes_lib.episode_family(characters, episodes_lib.MULTI_SHOT, width=4)
    episode = family.sample(jax.random.key(0))
    task = family.task(episode)
    support = episodes_lib.select_drawings(characters, episode, 0, 15)

    batch = task.batch(jax.random.key(1))

    assert batch.inputs.shape == (20, 28, 28, 1)
    known = {
        (image.tobytes(), int(label))
        for image, label in zip(np.asarray(support.inputs), support.targets, strict=True)
    }
    assert {
        (image.tobytes(), int(label))
        for image, label in zip(np.asarray(batch.inputs), batch.targets, strict=True)
    } <= known


def test_queries_do_not_influence_one_another():
    """The logits of a query do not depend on the other queries."""
    network = episodes_lib.CharacterNet(outputs=5, width=4)
    images = jax.random.uniform(jax.random.key(0), (12, 28, 28, 1))
    params = network.init(jax.random.key(1), images)

    among_queries = network.apply(params, images, 8)
    alone = network.apply(params, jnp.concatenate([images[:8], images[9:10]]), 8)
    without_reference = network.apply(params, images)

    np.testing.assert_allclose(among_queries[9], alone[8], rtol=1e-4)
    assert np.abs(without_reference[9] - among_queries[9]).max() > 1e-3


def test_network_normalizes_its_batch():
    network = episodes_lib.CharacterNet(outputs=3, width=4)
    images = jax.random.uniform(jax.random.key(0), (6, 28, 28, 1))
    params = network.init(jax.random.key(1), images)

    np.testing.assert_allclose(
        network.apply(params, images), network.apply(params, 5.0 * images), atol=1e-3
    )


def test_accuracy_is_the_share_of_correct_queries():
    family = episodes_lib.episode_family(_characters(), _FEW, width=4)
    task = family.draw(jax.random.key(3))
    params = task.init(jax.random.key(1))
    bias = jnp.array([0.0, 0.0, 50.0, 0.0, 0.0])
    always_the_third = params | {"logits": {"kernel": params["logits"]["kernel"], "bias": bias}}

    assert float(task.accuracy(always_the_third)) == pytest.approx(0.2)
    # Four fifths of the queries have a loss of about 50, the others of 0.
    assert float(task.evaluation_loss(always_the_third)) == pytest.approx(40.0, abs=3.0)


def test_reward_loss_is_that_of_queries():
    family = episodes_lib.episode_family(_characters(), _FEW, width=4)
    task = family.draw(jax.random.key(0))
    params = task.init(jax.random.key(1))
    losses = jnp.stack(
        [task.reward_loss(params, key) for key in jax.random.split(jax.random.key(2), 30)]
    )

    # 30 samples of 40 of the 75 queries.
    assert float(losses.mean()) == pytest.approx(float(task.evaluation_loss(params)), rel=0.1)
    assert float(losses.std()) > 0.0


def test_episodes_begin_with_given_parameters():
    characters = _characters()
    fresh = episodes_lib.episode_family(characters, _FEW, width=4)
    learned = fresh.draw(jax.random.key(0)).init(jax.random.key(5))

    family = episodes_lib.episode_family(characters, _FEW, width=4, initial_params=learned)

    initial = family.draw(jax.random.key(1)).init(jax.random.key(6))
    jax.tree.map(np.testing.assert_array_equal, initial, learned)


def test_too_few_drawings_or_characters_are_refused():
    with pytest.raises(ValueError, match=r"16 shots and 5 queries.*20 drawings"):
        episodes_lib.Protocol("much", 5, 16, 5)
    with pytest.raises(ValueError, match=r"Too few characters .*'20-way, multi-shot'"):
        episodes_lib.draw_episode(_characters(), episodes_lib.MULTI_SHOT, jax.random.key(0))
