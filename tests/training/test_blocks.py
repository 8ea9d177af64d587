"""Sequential training on disk: exact, resumed bit for bit, refused when anything is wrong with it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from implicitref import activations, errors, networks, sequential
from implicitref.training import blocks, start

SIZES = (2, 1, 2)
CONFIG = {"random_state": 3, "data": 17}


def training(start=None):
    rng = np.random.default_rng(0)
    x, labels = sequential.augment(rng.normal(size=(60, 3))), rng.integers(4, size=60)
    return sequential.greedy(x, labels, SIZES, loss="cross-entropy", random_state=3, start=start)


@pytest.fixture(scope="module")
def models():
    return list(training())


def identical(a, b):
    return a.sizes == b.sizes and all(np.array_equal(a.params[k], b.params[k]) for k in "ABC")


def test_what_is_saved_is_loaded_exactly(tmp_path, models):
    blocks.save(tmp_path / "b.npz", models[1], CONFIG)
    model, config = blocks.load(tmp_path / "b.npz")
    assert identical(model, models[1])
    assert model.history == models[1].history
    assert model.activation is models[1].activation
    assert config == CONFIG
    assert [path.name for path in tmp_path.iterdir()] == ["b.npz"]


@pytest.mark.claim("GREEDY-Tab3")
@pytest.mark.parametrize("finished", [1, 2, 3])
def test_training_killed_between_blocks_resumes_bit_for_bit(tmp_path, models, finished):
    running = blocks.kept(training(), tmp_path / "b.npz", CONFIG)
    for _ in range(finished):
        handed_on = next(running)
    running.close()
    start = blocks.resumed(tmp_path / "b.npz", CONFIG)
    assert identical(start, handed_on)
    rest = list(blocks.kept(training(start), tmp_path / "b.npz", CONFIG))
    assert [len(model.sizes) for model in rest] == list(range(finished + 1, len(SIZES) + 1))
    assert identical(blocks.resumed(tmp_path / "b.npz", CONFIG), models[-1])


def test_a_block_that_dies_leaves_the_one_before(tmp_path, models):
    def dying():
        yield models[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(blocks.kept(dying(), tmp_path / "b.npz", CONFIG))
    assert identical(blocks.load(tmp_path / "b.npz")[0], models[0])


def test_other_settings_are_named(tmp_path, models):
    blocks.save(tmp_path / "b.npz", models[0], CONFIG)
    with pytest.raises(errors.HypothesisError, match=r"data = 17 \(now 18\). Give the same"):
        blocks.resumed(tmp_path / "b.npz", CONFIG | {"data": 18})
    with pytest.raises(errors.HypothesisError, match="does not exist: no block was finished"):
        blocks.resumed(tmp_path / "none.npz", CONFIG)


def test_the_activation_is_in_the_file(tmp_path, models):
    blocks.save(tmp_path / "b.npz", dataclasses.replace(models[0], activation=activations.leaky_relu(1 / 3)), {})
    loaded = blocks.load(tmp_path / "b.npz")[0].activation
    assert loaded(np.array([[-1.0]])) == -1 / 3


def test_checkpoints_of_other_trainings_are_refused(tmp_path):
    blocks.save(tmp_path / "b.npz", training_state(), CONFIG)
    with pytest.raises(errors.HypothesisError, match="not a checkpoint of a BlockTriangularModel"):
        blocks.load(tmp_path / "b.npz")


def training_state():
    return start(networks.mon_fc(np.random.default_rng(0), 4, hidden=2), np.random.default_rng(0))


def test_truncated_files_are_refused(tmp_path, models):
    blocks.save(tmp_path / "b.npz", models[1], CONFIG)
    whole = (tmp_path / "b.npz").read_bytes()
    for size in range(0, len(whole), 97):
        (tmp_path / "b.npz").write_bytes(whole[:size])
        with pytest.raises(errors.HypothesisError):
            blocks.load(tmp_path / "b.npz")
