"""The test suite: finite losses, sizes, and errors for missing data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alphaopt_jax.tasks import datasets
from alphaopt_jax.tasks.suite import _data, _networks, catalog

pytestmark = pytest.mark.slow

_EVERY = {**catalog.SUITE, **catalog.LARGE}
_QUICK_KEYS = "unsafe_rbg"  # Compiles in a tenth of the time of the default.
_quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
_FROM_FILES = {"mnist_cnn", "mnist_mlp", "mnist_autoencoder", "omniglot", "large_mnist"}


def _instance(name):
    """The data of a task; random data in place of files."""
    if name not in _FROM_FILES:
        return _quick_jit(_EVERY[name].family.sample)(jax.random.key(0, impl=_QUICK_KEYS))
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 28, 28), np.uint8)
    labels = generator.integers(0, 10, 40, np.int32)
    return _data.Split(*map(jnp.asarray, (images[:30], labels[:30], images[30:], labels[30:])))


@pytest.mark.parametrize("name", catalog.SUITE)
def test_initial_losses_and_gradients_are_finite(name):
    family = catalog.SUITE[name].family
    init_key, batch_key = jax.random.split(jax.random.key(0, impl=_QUICK_KEYS))

    @_quick_jit
    def measure(instance):
        task = family.task(instance)
        params = task.init(init_key)
        loss, grads = jax.value_and_grad(task.loss)(params, task.batch(batch_key))
        return params, loss, grads

    instance = _instance(name)
    params, loss, grads = measure(instance)
    evaluated = jax.eval_shape(family.task(instance).evaluation_loss, params)

    assert (loss.shape, loss.dtype) == (evaluated.shape, evaluated.dtype) == ((), jnp.float32)
    assert 0.0 < loss < 1e6
    assert jax.tree.structure(params) == jax.tree.structure(grads)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))
    assert any(bool((leaf != 0.0).any()) for leaf in jax.tree.leaves(grads))


def test_sizes_and_names():
    def sizes(tasks):
        return [
            catalog.num_parameters(each.family.task(_instance(name)))
            for name, each in tasks.items()
        ]

    assert len(catalog.SUITE) >= 14
    assert max(sizes(catalog.SUITE)) <= 30_000
    assert min(sizes(catalog.LARGE)) >= 600_000
    assert sum(each.cheap for each in catalog.SUITE.values()) >= 4
    assert len({each.title for each in _EVERY.values()}) == len(_EVERY)
    assert all(name == each.name == each.family.name for name, each in _EVERY.items())


def test_convolution_by_slices_is_a_convolution():
    images = jax.random.normal(jax.random.key(0), (2, 7, 8, 3))
    network = _networks.StridedConvolution(5)

    @_quick_jit
    def both(images):
        params = network.init(jax.random.key(1, impl=_QUICK_KEYS), images)
        params["params"]["bias"] += 0.5
        expected = jax.lax.conv_general_dilated(
            images,
            params["params"]["kernel"],
            window_strides=(2, 2),
            padding=((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return network.apply(params, images), expected + 0.5

    np.testing.assert_allclose(*both(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "network", [_networks.CharacterTransformer(11), _networks.CharacterGRU(11)]
)
def test_text_models_are_causal(network):
    text = jax.random.randint(jax.random.key(0), (1, 12), 0, 11)
    changed = text.at[0, 7].set((text[0, 7] + 1) % 11)
    texts = jnp.stack([text, changed])

    @_quick_jit
    def logits(texts):
        params = network.init(jax.random.key(1, impl=_QUICK_KEYS), text)
        return jax.vmap(network.apply, (None, 0))(params, texts)

    before, after = logits(texts)

    np.testing.assert_allclose(before[0, :7], after[0, :7], atol=1e-6)
    assert (jnp.abs(before[0, 7:] - after[0, 7:]).max(axis=-1) > 1e-6).all()


def test_ill_conditioned_regression_has_its_condition_number_and_its_solution():
    family = catalog.SUITE["ill_conditioned"].family
    instance = family.sample(jax.random.key(0))
    task = family.task(instance)
    spectrum = np.linalg.eigvalsh(instance.mixing @ instance.mixing.T)
    answer = {"Dense_0": {"kernel": instance.weights[:, None], "bias": jnp.zeros(1)}}

    np.testing.assert_allclose(spectrum[-1] / spectrum[0], 1e4, rtol=0.02)
    assert float(task.evaluation_loss(answer)) == pytest.approx(0.03**2, rel=0.2)


def test_held_out_data_differ_from_training_data():
    family = catalog.SUITE["diabetes"].family
    task = family.task(data := family.sample(jax.random.key(0)))
    params = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(task.init, jax.random.key(0))
    )

    np.testing.assert_allclose(task.evaluation_loss(params), np.mean(data.test_targets**2), 1e-5)
    assert not set(map(bytes, np.asarray(data.train_inputs))) & set(
        map(bytes, np.asarray(data.test_inputs))
    )


def test_poissons_residual_vanishes_for_a_known_solution():
    family = catalog.SUITE["physics_informed"].family
    still = family.task(jnp.zeros(4))  # u = 0 solves -u'' = 0.
    params = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(still.init, jax.random.key(0))
    )
    points = jnp.array([0.25, 0.5])
    # For u = sin(πx), the residual of zero is π² sin(πx).
    wave = family.task(jnp.array([1.0, 0.0, 0.0, 0.0]))
    expected = np.mean((np.pi**2 * np.sin(np.pi * np.asarray(points))) ** 2)

    assert still.loss(params, points) == still.evaluation_loss(params) == 0.0
    np.testing.assert_allclose(wave.loss(params, points), expected, rtol=1e-4)


def test_ink_does_not_depend_on_the_png_decoder(monkeypatch, tmp_path):
    """Paper is 1 or 255, depending on the decoder."""
    import tensorflow_datasets as tfds

    (tmp_path / "omniglot").mkdir()
    monkeypatch.setattr(datasets, "prepared_folders", lambda data_dir=None: [tmp_path])

    def read(paper):
        image = np.full((105, 105, 3), paper, np.uint8)
        image[40:60, 20:80] = 0
        one = {"image": image, "alphabet": _data._OMNIGLOT_ALPHABET, "alphabet_char_id": 0}

        class Source(list):
            def __getitems__(self, indices):
                return [self[index] for index in indices]

        monkeypatch.setattr(tfds, "data_source", lambda *_, **__: Source([one] * 20))
        return _data.omniglot.__wrapped__()

    data = read(paper=1)

    assert data.train_inputs.shape == (15, 28, 28)
    assert data.test_inputs.shape == (5, 28, 28)
    assert data.train_targets.tolist() == [0] * 15
    small = data.train_inputs[0]
    assert small.dtype == np.uint8
    assert small.max() == 255
    assert small.mean() == pytest.approx(255 * 20 * 60 / 112**2, rel=0.02)
    for array, other in zip(data, read(paper=255), strict=True):
        np.testing.assert_array_equal(array, other)


def test_text_has_only_known_characters():
    train, held_out = _data.text()

    assert len(train) > 8 * len(held_out) > 8000
    assert train.max() < len(_data.CHARACTERS) == len(set(_data.CHARACTERS))
    assert "".join(_data.CHARACTERS[code] for code in train).count(" the ") > 50


def test_photograph_is_split_like_a_chessboard():
    data = _data.photograph()

    assert data.train_inputs.shape == data.test_inputs.shape == (2048, 2)
    assert not set(map(tuple, data.train_inputs)) & set(map(tuple, data.test_inputs))
    np.testing.assert_allclose(
        np.concatenate([data.train_targets, data.test_targets]).std(), 1.0, rtol=1e-4
    )


def test_missing_data_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "prepared_folders", lambda data_dir=None: [tmp_path])
    digits = datasets.ImageClassificationData(*[np.zeros(0)] * 4, source="scikit-learn digits")
    monkeypatch.setattr(datasets, "load_mnist", lambda: digits)

    with pytest.raises(FileNotFoundError, match="need MNIST itself"):
        _data.mnist.__wrapped__()
    with pytest.raises(FileNotFoundError, match=f"omniglot.*{tmp_path}.*TFDS_DATA_DIR"):
        _data.omniglot.__wrapped__()
