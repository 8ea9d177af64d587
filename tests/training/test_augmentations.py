"""Augmentation: every result is a moved or mirrored original, reproducible minibatch by minibatch."""

from __future__ import annotations

import numpy as np
import pytest

from implicitref import errors
from implicitref.training import augmentations

IMAGES = np.random.default_rng(0).normal(size=(40, 2, 7, 9)).astype(np.float32)


def crops(image, black):
    padded = np.pad(image, ((0, 0), (4, 4), (4, 4)), constant_values=black)
    return {(i, j): padded[:, i : i + 7, j : j + 9] for i in range(9) for j in range(9)}


def test_crops_are_windows_of_the_image_in_a_black_border():
    found = augmentations.crop(np.random.default_rng(1), IMAGES, -0.5)
    assert found.dtype == IMAGES.dtype
    moves = [
        [move for move, crop in crops(image, -0.5).items() if np.array_equal(crop, result)]
        for image, result in zip(IMAGES, found, strict=True)
    ]
    assert all(len(move) == 1 for move in moves)
    for axis in (0, 1):
        assert {move[0][axis] for move in moves} == set(range(9))


def test_flips_mirror_half_of_the_images():
    found = augmentations.flip(np.random.default_rng(1), IMAGES)
    mirrored = [np.array_equal(a, b[:, :, ::-1]) for a, b in zip(found, IMAGES, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(found, IMAGES, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 8 <= sum(mirrored) <= 32


def test_crop_flip_is_one_after_the_other():
    a, b = np.random.default_rng(2), np.random.default_rng(2)
    desired = augmentations.flip(b, augmentations.crop(b, IMAGES, 1.0))
    assert np.array_equal(augmentations.crop_flip(a, IMAGES, 1.0), desired)


def test_every_minibatch_has_its_own_numbers_whatever_came_before():
    def draw():
        return augmentations.by_name("crop")(np.random.default_rng(3), 0.0)

    first, second = draw(), draw()
    in_order = [first(index, IMAGES) for index in range(3)]
    assert all(np.array_equal(second(index, IMAGES), in_order[index]) for index in (2, 0, 1))
    assert not np.array_equal(in_order[0], in_order[1])


def test_none_draws_nothing():
    rng = np.random.default_rng(0)
    assert augmentations.by_name("none")(rng, 0.0)(0, IMAGES) is IMAGES
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_what_cannot_be_is_refused():
    with pytest.raises(errors.HypothesisError, match="none, crop, crop-flip"):
        augmentations.by_name("rotate")
    with pytest.raises(errors.HypothesisError, match="needs images"):
        augmentations.by_name("crop")(np.random.default_rng(0), 0.0)(0, np.ones((2, 64)))
