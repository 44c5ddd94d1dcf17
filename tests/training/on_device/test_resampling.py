"""Filters of a batch as matrices and kernels: equal to OpenCV's, image by image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from tiepoint.training.on_device.resampling import (
    filtered,
    gaussian,
    motion_kernels,
    rescaling,
)
from tiepoint.training.scenes.photometry import Motion, motion_kernel

SIZE = (72, 101)
IMAGES = np.random.default_rng(0).random((6, *SIZE), np.float32)
BATCH = torch.from_numpy(IMAGES)


def test_each_image_has_its_own_gaussian_blur() -> None:
    sigmas = [0.0, 0.31, 0.8, 1.7, 5.0, 8.0]
    blurred = gaussian(torch.tensor(sigmas), SIZE)(BATCH).numpy()
    assert np.array_equal(blurred[0], IMAGES[0])
    for image, sigma, one in zip(IMAGES[1:], sigmas[1:], blurred[1:], strict=True):
        assert np.abs(one - cv2.GaussianBlur(image, (0, 0), sigma)).max() < 1e-5


def test_a_blur_wider_than_the_view_keeps_its_mean_grey() -> None:
    flat = torch.full((1, 64, 64), 0.25)
    assert gaussian(torch.tensor([30.0]), (64, 64))(flat).numpy() == pytest.approx(0.25)


def test_the_parts_of_a_batch_of_blurs_are_blurs() -> None:
    both = gaussian(torch.tensor([1.0, 2.0, 3.0, 4.0]), SIZE)
    first, second = both.chunk(2)
    assert torch.equal(torch.cat([first(BATCH[:2]), second(BATCH[2:4])]), both(BATCH[:4]))


def test_each_image_is_rescaled_through_its_own_size() -> None:
    sizes = [(72, 101), (29, 41), (36, 51), (57, 80), (40, 55), (58, 81)]
    rescaled = rescaling(torch.tensor(sizes).float(), SIZE)(BATCH).numpy()
    assert np.array_equal(rescaled[0], IMAGES[0])
    for image, (height, width), one in zip(IMAGES[1:], sizes[1:], rescaled[1:], strict=True):
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        assert np.abs(one - cv2.resize(small, SIZE[::-1])).max() < 1e-4


def test_motion_kernels_are_those_of_the_single_views() -> None:
    lengths, angles = [0.0, 2.0, 4.7, 7.0, 11.9], [1.0, 0.0, 0.7, 1.6, 3.1]
    side = 15
    kernels = motion_kernels(torch.tensor(lengths), torch.tensor(angles), side).numpy()
    assert kernels[0].sum() == kernels[0, side // 2, side // 2] == 1
    for kernel, length, angle in zip(kernels[1:], lengths[1:], angles[1:], strict=True):
        single = motion_kernel(Motion(length, angle))
        margin = (side - len(single)) // 2
        assert np.abs(kernel - np.pad(single, margin)).max() < 1e-5


def test_each_image_is_correlated_with_its_own_kernel() -> None:
    kernels = np.random.default_rng(1).random((6, 5, 5), np.float32)
    results = filtered(BATCH, torch.from_numpy(kernels)).numpy()
    for image, kernel, result in zip(IMAGES, kernels, results, strict=True):
        assert np.abs(result - cv2.filter2D(image, -1, kernel)).max() < 1e-4
