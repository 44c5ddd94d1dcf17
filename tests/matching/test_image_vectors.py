"""One vector for an image, from the descriptors of its keypoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import tiepoint
from tiepoint.errors import ConfigError
from tiepoint.features import Features
from tiepoint.matching import image_vectors
from tiepoint.matching.image_vectors import (
    Vocabulary,
    learned_centres,
    spherical_means,
    with_projection,
)
from tiepoint.matching.similar import similar_pairs


def unit_rows(count: int, length: int, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, length))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def features(count: int, length: int = 6, seed: int = 0) -> Features:
    scores = np.random.default_rng(seed).random(count).astype(np.float32)
    return Features(
        np.zeros((count, 2), np.float32), scores, unit_rows(count, length, seed), (10, 10)
    )


def test_a_vector_equals_the_sums_of_residuals() -> None:
    image, centres = features(30), unit_rows(3, 6, seed=9)
    assert image.descriptors is not None
    sums = np.zeros((3, 6))
    for row in image.descriptors.astype(float):
        nearest = max(range(3), key=lambda index: float(row @ centres[index]))
        sums[nearest] += row - centres[nearest]
    expected = (np.sign(sums) * np.sqrt(np.abs(sums))).ravel()
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(Vocabulary(centres).vector(image), expected, atol=1e-5)


def test_an_image_without_keypoints_has_a_vector_of_zeros() -> None:
    vocabulary = Vocabulary(unit_rows(3, 6))
    assert not vocabulary.vector(features(0)).any()
    vectors = np.stack([vocabulary.vector(features(9, seed=seed)) for seed in range(12)])
    projected = with_projection(vocabulary, vectors, 5)
    assert projected.length == 5 and not projected.vector(features(0)).any()


def test_the_order_of_keypoints_changes_a_vector_by_rounding_only() -> None:
    image, vocabulary = features(50), Vocabulary(unit_rows(4, 6, seed=2))
    turned = image.take(np.arange(50)[::-1])
    np.testing.assert_allclose(vocabulary.vector(image), vocabulary.vector(turned), atol=1e-4)


def test_features_that_cannot_be_pooled_are_refused() -> None:
    image, vocabulary = features(3), Vocabulary(unit_rows(2, 6))
    with pytest.raises(ConfigError, match="no descriptors"):
        vocabulary.vector(Features(image.xy, image.scores, None, (10, 10)))
    broken = np.array(image.descriptors)
    broken[0, 0] = np.nan
    with pytest.raises(ConfigError, match="not finite"):
        vocabulary.vector(replace(image, descriptors=broken))
    with pytest.raises(ConfigError, match="have 8 values, those of other images 6"):
        vocabulary.vector(features(3, length=8))


def test_few_descriptors_are_summed() -> None:
    vocabulary = learned_centres(unit_rows(100, 6))
    assert vocabulary.centres.tolist() == [[0] * 6]
    assert len(learned_centres(unit_rows(10_000, 6)).centres) == image_vectors.CENTRES


def test_centres_equal_those_of_the_slow_twin() -> None:
    rows = unit_rows(300, 4)
    draw = np.random.default_rng(3).choice(300, 5, replace=False)
    centres = rows[np.sort(draw)].astype(float)
    for _ in range(6):
        nearest = [int(np.argmax(row @ centres.T)) for row in rows]
        for index in range(5):
            total = sum((row for row, own in zip(rows, nearest, strict=True) if own == index))
            if np.any(total):
                centres[index] = total / np.linalg.norm(total)
    found = spherical_means(rows, 5, steps=6, seed=3)
    np.testing.assert_allclose(found, centres, atol=1e-5)


def test_centres_of_copies_keep_their_places() -> None:
    rows = np.repeat(unit_rows(1, 4), 20, axis=0)
    np.testing.assert_allclose(spherical_means(rows, 3), rows[:3], atol=1e-6)
    same = Vocabulary(np.zeros((1, 4), np.float32))
    assert with_projection(same, rows, 2).projection is None


def test_a_projection_equals_that_of_the_covariance() -> None:
    vocabulary = Vocabulary(unit_rows(2, 6, seed=5))
    images = [features(20, seed=seed) for seed in range(40)]
    vectors = np.stack([vocabulary.vector(image) for image in images]).astype(float)
    variances, axes = np.linalg.eigh(np.cov(vectors.T, bias=True))
    chosen = np.argsort(-variances)[:4]
    expected = (vectors - vectors.mean(axis=0)) @ axes[:, chosen] / variances[chosen] ** 0.25
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    projected = with_projection(vocabulary, vectors.astype(np.float32), 4)
    found = np.stack([projected.vector(image) for image in images])
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-3)


def test_real_photographs_find_their_own_scene(shared: Path) -> None:
    detector = tiepoint.Detector("small", max_side=480, max_keypoints=500)
    images, scenes = [], []
    for scene in ("oxford/bikes", "oxford/ubc", "iguazu", "strecha/fountain-P11"):
        folder = shared / "eval" / scene
        files = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))[:4]
        for file in files:
            images.append(detector(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)))
            scenes.append(scene)
    vocabulary = learned_centres(np.concatenate([image.descriptors for image in images]))
    pairs = similar_pairs(np.stack([vocabulary.vector(image) for image in images]), 1)
    right = [scenes[i] == scenes[j] for i, j in pairs.tolist()]
    assert np.mean(right) > 0.8  # by chance .2
