"""Tracks by features alone: one id for each point, whatever the camera does."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from numpy.typing import NDArray

from support.tracked_world import SIZE_HW, World, camera
from tiepoint.config import TrackingConfig
from tiepoint.errors import ConfigError
from tiepoint.features import Features
from tiepoint.geometry import apply_homography
from tiepoint.tracking.keyframes import KeyframeChoice
from tiepoint.tracking.tracker import Step, Tracker


def followed(
    world: World, matrices: list[NDArray[np.float64]], **settings: int
) -> tuple[dict[int, list[int]], dict[int, list[int]], list[Step]]:
    """Id -> the points it was given to; point -> its ids; and the steps."""
    tracker = Tracker(TrackingConfig(**settings))  # type: ignore[arg-type]
    points, ids, steps = defaultdict(list), defaultdict(list), []
    for matrix in matrices:
        features, names = world.seen(matrix)
        step = tracker.step(features)
        for track, keypoint in zip(step.ids.tolist(), step.keypoints.tolist(), strict=True):
            points[track].append(int(names[keypoint]))
            ids[int(names[keypoint])].append(track)
        steps.append(step)
    return points, ids, steps


def test_a_point_keeps_its_id_as_long_as_it_is_seen_and_an_id_is_one_point() -> None:
    points, ids, steps = followed(World(), [camera(t) for t in range(40)])
    assert all(len(set(names)) == 1 for names in points.values())
    assert np.mean([len(set(tracks)) == 1 for tracks in ids.values()]) > 0.9
    lengths = [len(names) for names in points.values()]
    assert np.mean(lengths) > 15 and max(lengths) == 40
    for earlier, step in zip([None, *steps], steps, strict=False):
        assert (np.diff(step.ids) > 0).all()
        if earlier is not None:
            _, now, then = np.intersect1d(step.ids, earlier.ids, return_indices=True)
            assert len(now) > 30
            np.testing.assert_array_equal(step.ages[now], earlier.ages[then] + 1)


def test_the_motion_is_that_of_the_camera() -> None:
    _, _, steps = followed(World(), [camera(t) for t in range(12)])
    assert steps[0].motion is None and not steps[0].is_cut
    grid = np.stack(np.meshgrid([60, 160, 260], [50, 120, 190]), axis=-1).reshape(-1, 2)
    for t, step in enumerate(steps[1:], 1):
        assert step.motion is not None
        truth = camera(t) @ np.linalg.inv(camera(t - 1))
        off = apply_homography(step.motion, grid) - apply_homography(truth, grid)
        assert np.abs(off).max() < 1


@pytest.mark.parametrize(("unseen", "is_closed"), [(5, True), (6, False)])
def test_a_gap_is_closed_up_to_the_maximum(unseen: int, is_closed: bool) -> None:
    world, tracker = World(noise_px=0), Tracker(TrackingConfig(max_gap=5))
    hidden = np.arange(0, 200, 2)
    before, ended = {}, []
    for t in range(3):
        features, names = world.seen(camera(t))
        step = tracker.step(features)
        before = dict(zip(names[step.keypoints].tolist(), step.ids.tolist(), strict=True))
    for t in range(3, 3 + unseen):
        ended += tracker.step(world.seen(camera(t), hidden)[0]).ended.tolist()
    features, names = world.seen(camera(3 + unseen))
    step = tracker.step(features)
    after = dict(zip(names[step.keypoints].tolist(), step.ids.tolist(), strict=True))
    again = [name for name in before if name % 2 == 0 and name in after]
    assert len(again) > 20
    same = np.mean([before[name] == after[name] for name in again])
    assert same == 1 if is_closed else same == 0
    assert {before[name] for name in again}.isdisjoint(ended) == is_closed


def test_a_jerk_beyond_the_search_radius_keeps_the_ids() -> None:
    jerk = np.array([[1, 0, 90], [0, 1, -60], [0, 0, 1.0]])
    points, _, steps = followed(World(), [camera(0), camera(1), jerk @ camera(2)])
    assert not steps[2].is_cut and (steps[2].ages == 3).sum() > 20
    assert all(len(set(names)) == 1 for names in points.values())


def test_another_shot_is_a_cut_and_its_tracks_are_new() -> None:
    one, tracker = World(), Tracker(TrackingConfig())
    other = World()
    other.described = np.roll(other.described[:, ::-1], 7, axis=0)
    for t in range(3):
        last = tracker.step(one.seen(camera(t))[0])
    step = tracker.step(other.seen(camera(3))[0])
    assert step.is_cut and step.motion is None
    assert np.mean(step.ages == 1) > 0.95 and step.ids[step.ages == 1].min() > last.ids.max()
    flash = tracker.step(one.seen(camera(4))[0])  # the first shot again, after a frame of another
    assert np.mean(flash.ages == 4) > 0.6


def test_a_logo_is_static_and_the_scene_is_not() -> None:
    world, tracker = World(logo=25), Tracker(TrackingConfig())
    for t in range(30):
        features, names = world.seen(camera(t))
        step = tracker.step(features)
    is_logo = names[step.keypoints] >= 200
    assert is_logo.sum() > 20
    assert step.static[is_logo].mean() > 0.9 and step.static[~is_logo].sum() == 0


def test_nothing_is_static_for_a_camera_at_rest() -> None:
    _, _, steps = followed(World(logo=25), [camera(0)] * 30)
    assert not any(step.static.any() for step in steps)


def test_a_broken_frame_is_passed_over() -> None:
    world, tracker = World(), Tracker(TrackingConfig(max_gap=0))
    first = tracker.step(world.seen(camera(0))[0])
    for _ in range(3):
        tracker.skip()
    second = tracker.step(world.seen(camera(1))[0])
    assert np.isin(second.ids, first.ids).mean() > 0.8


def test_frames_without_keypoints_and_frames_of_another_size_end_no_run() -> None:
    world, tracker = World(), Tracker(TrackingConfig(max_gap=1))
    empty = Features(np.empty((0, 2), np.float32), np.empty(0, np.float32), None, SIZE_HW)
    assert len(tracker.step(empty).ids) == 0
    first = tracker.step(world.seen(camera(0))[0])
    assert len(tracker.step(empty).ended) == 0
    np.testing.assert_array_equal(tracker.step(empty).ended, first.ids)
    features = world.seen(camera(1))[0]
    again = tracker.step(features)
    larger = Features(features.xy, features.scores, features.descriptors, (480, 640))
    other = tracker.step(larger)
    np.testing.assert_array_equal(other.ended, again.ids)
    assert other.is_cut and not np.isin(other.ids, again.ids).any()


def test_features_without_descriptors_are_refused() -> None:
    features = Features(np.ones((3, 2), np.float32), np.ones(3, np.float32), None, SIZE_HW)
    with pytest.raises(ConfigError, match="descriptors=True"):
        Tracker(TrackingConfig()).step(features)


def test_new_tracks_start_from_the_best_keypoints_up_to_the_maximum() -> None:
    world, tracker = World(), Tracker(TrackingConfig(max_tracks=30, spacing_px=0))
    features, _ = world.seen(camera(0))
    np.testing.assert_array_equal(tracker.step(features).keypoints, np.arange(30))
    for t in range(1, 10):
        assert 25 <= len(tracker.step(world.seen(camera(t))[0]).ids) <= 30


def test_the_state_is_as_large_after_many_frames_as_after_few() -> None:
    world, tracker = World(), Tracker(TrackingConfig())
    sizes = []
    for t in range(300):
        tracker.step(world.seen(camera(t % 40))[0])
        assert tracker._live is not None
        sizes.append(len(tracker._live))
    assert max(sizes[250:]) <= 1.2 * max(sizes[:50])


def test_keyframes_come_with_new_tracks_with_motion_and_with_cuts() -> None:
    choose = KeyframeChoice(TrackingConfig(keyframe_overlap=0.5, keyframe_motion=0.1))
    ids, xy = np.arange(10), np.zeros((10, 2), np.float32)
    assert choose(ids, xy, (100, 200), is_cut=False)  # the first
    assert not choose(ids, xy + 19 / 2**0.5, (100, 200), is_cut=False)
    assert choose(ids, xy + 21 / 2**0.5, (100, 200), is_cut=False)
    moved = xy + 21 / 2**0.5
    assert not choose(ids + 5, moved, (100, 200), is_cut=False)  # half are left
    assert choose(ids + 6, moved, (100, 200), is_cut=False)
    assert choose(ids + 6, moved, (100, 200), is_cut=True)
    assert not choose(ids[:0], xy[:0], (100, 200), is_cut=True)  # a black frame


@pytest.mark.parametrize(
    ("setting", "value"),
    [("max_tracks", 0), ("max_gap", -1), ("search", 1.5), ("threshold_px", 0), ("spacing_px", -1),
     ("min_similarity", 2), ("keyframe_overlap", -0.1), ("keyframe_motion", 0)],
)  # fmt: skip
def test_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match=setting):
        TrackingConfig(**{setting: value})  # type: ignore[arg-type]
