"""Panoramas of known views: the pixels, the model, and the images that do not belong."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tiepoint.errors import ConfigError, ImageError, RegistrationError
from tiepoint.geometry import apply_homography
from tiepoint.registration.register import registration_detector
from tiepoint.registration.stitching import blending, bundle
from tiepoint.registration.stitching.graph import Link, largest_part, spanning_tree
from tiepoint.registration.stitching.stitch import stitch

Picture = NDArray[np.uint8]

DETECTOR = registration_detector("small")
FOCAL_PX, SIZE_HW = 350.0, (240, 320)
YAWS = (-0.7, -0.35, 0.0, 0.35, 0.7)


def turned(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """3x3, camera -> world."""
    axes = np.array([[0, yaw, 0], [pitch, 0, 0], [0, 0, roll]], np.float64)
    about_y, about_x, about_z = (cv2.Rodrigues(axis)[0] for axis in axes)
    return np.asarray(about_y @ about_x @ about_z)


def camera_px() -> NDArray[np.float64]:
    height, width = SIZE_HW
    return np.array([[FOCAL_PX, 0, (width - 1) / 2], [0, FOCAL_PX, (height - 1) / 2], [0, 0, 1]])


@pytest.fixture(scope="module")
def views(photographs: list[Picture]) -> list[Picture]:
    """What a turning camera sees of a sphere with photographs on it."""
    sphere = np.concatenate([photographs[2], photographs[2][:, ::-1]], axis=1)  # 400 1200 3
    x, y = np.meshgrid(np.arange(SIZE_HW[1]), np.arange(SIZE_HW[0]))
    pixels = np.stack([x, y, np.ones_like(x)], axis=-1)
    views = []
    for index, yaw in enumerate(YAWS):
        rotation = turned(yaw, 0.03 * (-1) ** index, 0.04 * (index - 2))
        ray = pixels @ np.linalg.inv(camera_px()).T @ rotation.T
        u = np.arctan2(ray[..., 0], ray[..., 2]) * 400 + 600
        v = np.arctan2(ray[..., 1], np.hypot(ray[..., 0], ray[..., 2])) * 400 + 200
        view = cv2.remap(sphere, u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR)
        views.append(np.asarray(view, np.uint8))
    return views


def test_crops_of_a_photograph_are_the_photograph_again(photographs: list[Picture]) -> None:
    photo, other = photographs[2], photographs[1]
    crops = [photo[0:300, 0:280], other, photo[60:380, 180:460], photo[40:400, 360:600]]
    panorama = stitch(crops, detector=DETECTOR)
    assert panorama.members == (0, 2, 3) and panorama.kind == "homography"
    assert list(panorama.left_out) == [1] and "no overlap with the others" in panorama.left_out[1]
    assert panorama.residual_px < 0.3
    height, width = panorama.picture.shape[:2]
    assert abs(height - 400) <= 2 and abs(width - 600) <= 2
    best = np.inf
    for dx in (-1, 0, 1):
        shifted = np.roll(panorama.picture, dx, axis=1)[5:395, 5:595].astype(int)
        valid = np.roll(panorama.valid, dx, axis=1)[5:395, 5:595]
        off = np.abs(shifted - photo[5:395, 5:595]).mean(axis=2)
        best = min(best, off[cv2.erode(valid.astype(np.uint8), np.ones((9, 9))) > 0].mean())
    assert best < 6
    black = panorama.picture[~panorama.valid]
    assert len(black) > 10_000 and black.max() == 0


def test_a_camera_that_turns_is_recognised_and_put_on_a_sphere(views: list[Picture]) -> None:
    darker = [
        np.asarray(view * (0.75 if index == 1 else 1), np.uint8) for index, view in enumerate(views)
    ]
    panorama = stitch(darker, detector=DETECTOR)
    assert panorama.members == tuple(range(5)) and not panorama.left_out
    assert (panorama.kind, panorama.surface) == ("rotation", "sphere")
    assert panorama.residual_px < 1
    width = panorama.picture.shape[1]
    seen = 2 * (YAWS[-1] + np.arctan(SIZE_HW[1] / 2 / FOCAL_PX))  # rad
    assert width == pytest.approx(seen * FOCAL_PX, rel=0.06)
    plane = stitch(views[1:4], detector=DETECTOR, surface="plane")
    assert plane.surface == "plane" and plane.picture.shape[1] > 1.5 * SIZE_HW[1]


def links_of(matrices: list[NDArray[np.float64]], noise_px: float) -> list[Link]:
    """Exact matches of neighbours, with noise; px -> the common frame by `matrices`."""
    rng, links = np.random.default_rng(0), []
    for a in range(len(matrices)):
        for b in range(a + 1, min(a + 3, len(matrices))):
            between = np.linalg.inv(matrices[b]) @ matrices[a]
            xy_a = rng.uniform((0, 0), SIZE_HW[::-1], (400, 2))
            xy_b = apply_homography(between, xy_a)
            with np.errstate(invalid="ignore"):
                inside = ((xy_b > 0) & (xy_b < SIZE_HW[::-1])).all(axis=1)
            noisy = xy_b[inside] + rng.normal(0, noise_px, (int(inside.sum()), 2))
            rough = between + rng.normal(0, 1e-3, (3, 3)) * np.abs(between)
            if inside.sum() > 20:
                links.append(Link(a, b, rough, xy_a[inside], noisy))
    return links


def test_the_bundle_finds_rotations_and_focal_length() -> None:
    rotations = [turned(0.3 * i, 0.05 * (-1) ** i, 0.03 * i) for i in range(5)]
    links = links_of([r @ np.linalg.inv(camera_px()) for r in rotations], 0.3)
    middle, tree = spanning_tree(range(5), links)
    start = bundle.rotations([SIZE_HW] * 5, middle, tree)
    assert start is not None
    solved = bundle.adjusted(start, links, 2.0)
    assert np.median(bundle.offsets_px(solved, links)) < 0.45
    assert np.median(bundle.offsets_px(start, links)) > 2 * np.median(
        bundle.offsets_px(solved, links)
    )
    assert solved.focal * SIZE_HW[1] == pytest.approx(FOCAL_PX, rel=0.01)
    for index in range(5):
        found = solved.frames[middle].T @ solved.frames[index]
        true = rotations[middle].T @ rotations[index]
        assert np.linalg.norm(cv2.Rodrigues(found @ true.T)[0]) < 0.005


def test_the_bundle_of_homographies_spreads_no_error_along_the_chain() -> None:
    frames = [
        np.array([[1, 0.02 * i, 60 * i], [-0.01 * i, 1, 4 * i], [1e-5 * i, 0, 1]]) for i in range(5)
    ]
    links = links_of(frames, 0.2)
    middle, tree = spanning_tree(range(5), links)
    start = bundle.homographies([SIZE_HW] * 5, middle, tree)
    solved = bundle.adjusted(start, links, 2.0)
    assert np.median(bundle.offsets_px(solved, links)) < 0.3
    corners = np.array([[0, 0], [319, 0], [319, 239], [0, 239]])
    for index in range(5):
        true = np.linalg.inv(frames[middle]) @ frames[index]
        off = apply_homography(solved.matrices[index], corners) - apply_homography(true, corners)
        assert np.abs(off).max() < 1


@pytest.mark.parametrize("kind", ["homography", "rotation"])
def test_the_normal_equations_are_those_of_all_parameters_at_once(kind: str) -> None:
    """A slow twin: derivatives of the whole bundle, one parameter after the other."""
    rotations = [turned(0.3 * i, 0.05, 0.03 * i) for i in range(3)]
    links = links_of([r @ np.linalg.inv(camera_px()) for r in rotations], 0.5)
    middle, tree = spanning_tree(range(3), links)
    make = bundle.homographies if kind == "homography" else bundle.rotations
    start = make([SIZE_HW] * 3, middle, tree)
    assert start is not None
    normal, gradient = bundle._normal_equations(start, links, 2.0)

    def offsets(delta: NDArray[np.float64]) -> NDArray[np.float64]:
        moved = start.stepped(delta)
        matrices = moved.matrices
        return np.concatenate([
            apply_homography(np.linalg.inv(matrices[k.b]) @ matrices[k.a], k.xy_a) - k.xy_b
            for k in links
        ])  # fmt: skip

    total = len(gradient)
    now = offsets(np.zeros(total))
    weights = 1 / np.square(1 + np.square(now / 2.0).sum(axis=1))
    columns = np.stack([(offsets(1e-6 * row) - now) / 1e-6 for row in np.eye(total)])
    size = start.size
    columns[size * middle : size * (middle + 1)] = 0
    slow = np.einsum("pmk,qmk,m->pq", columns, columns, weights)
    scale = np.abs(slow).max()
    np.testing.assert_allclose(normal, slow, atol=1e-3 * scale)
    slow_gradient = np.einsum("pmk,mk,m->p", columns, now, weights)
    np.testing.assert_allclose(gradient, slow_gradient, atol=1e-3 * np.abs(slow_gradient).max())


def test_shifted_planes_have_no_focal_length() -> None:
    frames = [np.array([[1, 0, 100.0 * i], [0, 1, 0], [0, 0, 1]]) for i in range(3)]
    links = [
        Link(a, a + 1, np.linalg.inv(frames[a + 1]) @ frames[a], np.ones((9, 2)), np.ones((9, 2)))
        for a in range(2)
    ]
    assert bundle.rotations([SIZE_HW] * 3, 1, links) is None


def test_the_largest_part_of_the_graph_is_taken() -> None:
    def link(a: int, b: int, count: int) -> Link:
        return Link(a, b, np.eye(3), np.ones((count, 2)), np.ones((count, 2)))

    assert largest_part(6, [link(0, 1, 90), link(2, 3, 20), link(3, 5, 20)]) == [2, 3, 5]
    assert largest_part(4, [link(0, 1, 20), link(2, 3, 30)]) == [2, 3]
    assert largest_part(2, []) == [0]
    chain = [link(0, 1, 50), link(1, 2, 50), link(0, 2, 10), link(2, 3, 50), link(3, 4, 50)]
    middle, tree = spanning_tree(range(5), chain)
    assert middle == 2 and len(tree) == 4 and all(len(one) == 50 for one in tree)
    known = {middle}
    for one in tree:
        assert len(known & {one.a, one.b}) == 1
        known |= {one.a, one.b}


@pytest.mark.parametrize("surface", ["plane", "sphere"])
def test_places_of_a_surface_and_directions_are_inverse(surface: blending.Surface) -> None:
    u, v = np.meshgrid(np.linspace(-1.2, 1.2, 9), np.linspace(-0.8, 0.8, 7))
    vectors = blending.vectors_at(u, v, surface).reshape(-1, 3)
    places = blending.on_surface(3.0 * vectors, surface)
    np.testing.assert_allclose(places, np.stack([u, v], axis=-1).reshape(-1, 2), atol=1e-12)


def test_an_image_of_the_pole_is_around_all_longitudes() -> None:
    up = turned(0.3, 1.5, 0.2) @ np.linalg.inv(camera_px())  # looks upwards: y points down
    low, high = blending.extent(up, SIZE_HW, "sphere")
    np.testing.assert_allclose((low[0], high[0], low[1]), (-np.pi, np.pi, -np.pi / 2))
    level = turned(0.3, 0, 0) @ np.linalg.inv(camera_px())
    low, high = blending.extent(level, SIZE_HW, "sphere")
    assert high[0] - low[0] == pytest.approx(2 * np.arctan(160 / FOCAL_PX), abs=0.01)
    assert high[1] == pytest.approx(np.arctan(120 / FOCAL_PX), abs=0.01)


def test_seams_are_half_way_between_the_borders_of_two_images() -> None:
    masks = [np.full((40, 60), 255, np.uint8), np.full((40, 60), 255, np.uint8)]
    left, right = blending.seams(masks, [(0, 0), (20, 0)], (40, 80))
    owners = np.zeros((40, 80), int)
    owners[:, :60] += left > 0
    owners[:, 20:] += 2 * (right > 0)
    assert set(np.unique(owners)) == {1, 2}  # each pixel once
    assert (owners[20, :39] == 1).all() and (owners[20, 41:] == 2).all()


def test_images_that_cannot_be_stitched_are_refused(
    photographs: list[Picture], views: list[Picture]
) -> None:
    with pytest.raises(RegistrationError, match="no two of the 2 images align"):
        stitch([photographs[0], photographs[2]], detector=DETECTOR)
    with pytest.raises(ConfigError, match="1 images, expected two or more"):
        stitch([photographs[0]], detector=DETECTOR)
    with pytest.raises(ConfigError, match="a side of 32001 px"):
        stitch([photographs[0], np.zeros((2, 32_001), np.uint8)], detector=DETECTOR)
    with pytest.raises(ConfigError, match="expected 'homography'"):
        stitch(photographs[:2], detector=DETECTOR, model="affine")
    with pytest.raises(ConfigError, match="surface"):
        stitch(photographs[:2], detector=DETECTOR, surface="cube")  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="none.png"):
        stitch([photographs[0], "none.png"], detector=DETECTOR)
    with pytest.raises(RegistrationError, match="a sphere needs a camera that turns"):
        photo = photographs[2]
        stitch([photo[:, :400], photo[:, 150:]], detector=DETECTOR, surface="sphere")


def test_real_photographs_of_a_wall_are_stitched_and_another_is_left_out(shared: Path) -> None:
    folder = shared / "eval" / "oxford"
    wall = [folder / "wall" / f"{number}.png" for number in (1, 2, 3)]
    other = folder / "bikes" / "1.png"
    if not all(path.is_file() for path in (*wall, other)):
        pytest.skip("no pairs of the Oxford set")
    panorama = stitch([*wall, other], detector=DETECTOR)
    assert panorama.members == (0, 1, 2) and list(panorama.left_out) == [3]
    assert panorama.residual_px < 1.5


def test_pixels_without_data_are_not_in_the_picture(photographs: list[Picture]) -> None:
    photo = photographs[2]
    left, right = photo[:, 0:360], photo[:, 200:560]
    alpha = np.full(left.shape[:2], 255, np.uint8)
    alpha[:, 300:], alpha[:60, :100] = 0, 0  # under the right image, and where no other is
    panorama = stitch([np.dstack([left, alpha]), right], detector=DETECTOR)
    assert panorama.members == (0, 1)
    assert not panorama.valid[5:50, 5:90].any() and panorama.picture[5:50, 5:90].max() == 0
    height, width = (min(sides) for sides in zip(panorama.valid.shape, (400, 560), strict=True))
    hidden = np.s_[70 : height - 5, 290 : width - 5]
    assert panorama.valid[hidden].all()
    off = np.abs(panorama.picture[hidden].astype(int) - photo[hidden]).mean()
    assert off < 12
