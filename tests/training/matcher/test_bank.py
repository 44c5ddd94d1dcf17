"""The bank of features: resuming at the next shard, refusals, damaged files, workers."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from support.checkpoints import random_checkpoint
from support.matcher_scenes import fake_scene
from tiepoint.detector import Detector
from tiepoint.errors import TiepointError, TrainingError
from tiepoint.training.matcher import bank, drawing
from tiepoint.training.matcher import workers as matcher_workers
from tiepoint.training.matcher.bank import (
    HELD_OUT_FILE,
    PER_KEYPOINT,
    RECORD_FILE,
    SHARD_FILES,
    BankBuilder,
    Scenes,
    open_held_out,
    open_scenes,
    read_record,
    write_shard,
)
from tiepoint.training.matcher.drawing import SceneFeatures
from tiepoint.training.matcher.settings import SMOKE_DATA, VIEWS
from tiepoint.training.matcher.workers import Drawing, drawn_scenes

CHECKPOINT = random_checkpoint()
DATA = replace(SMOKE_DATA, small_hw=(64, 80), large_hw=(64, 80), max_keypoints=40)
quiet = {"workers": 0, "echo": lambda line: None}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Scenes that are drawn in no time; the list has the indices drawn."""
    drawn: list[int] = []

    def scenes(_: Drawing, indices: range, workers: int, stop: Event) -> Iterator[SceneFeatures]:
        for index in indices:
            if stop.is_set():
                return
            drawn.append(index)
            yield fake_scene(index)

    monkeypatch.setattr(bank, "drawn_scenes", scenes)
    monkeypatch.setattr(bank, "SHARD_SCENES", 3)
    return drawn


def builder(folder: Path, scenes: int = 7, **changes: object) -> BankBuilder:
    given = {"checkpoint": CHECKPOINT, "data": DATA, "seed": 1, "held_out": 2, **changes}
    return BankBuilder(folder, scenes=scenes, **given)  # type: ignore[arg-type]


def test_a_bank_has_all_scenes_and_the_held_out_ones(tmp_path: Path, fake: list[int]) -> None:
    full = builder(tmp_path)
    assert full.fill(seconds=None, stop=Event(), **quiet)
    assert (full.counted, full.record.shards) == (7, 3)
    scenes, held_out = open_scenes(tmp_path, 3), open_held_out(tmp_path)
    assert (len(scenes), len(held_out)) == (7, 2)
    for number in scenes:
        expected = fake_scene(number)
        first = 0
        for view, count in enumerate(expected.counts):
            ours = scenes.view(number, view)
            for name in PER_KEYPOINT:
                theirs = getattr(expected, name)[first : first + count]
                np.testing.assert_array_equal(getattr(ours, name), theirs)
            first += count
        assert scenes.view(number, 0).size_hw == tuple(expected.size_hw)
        cameras, focal = scenes.cameras(number)
        assert np.array_equal(cameras, expected.cameras) and focal == 0


def test_a_killed_bank_resumes_at_the_next_shard_and_is_the_same(
    tmp_path: Path, fake: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    builder(tmp_path / "whole").fill(seconds=None, stop=Event(), **quiet)
    fake.clear()
    monkeypatch.setattr(bank, "write_shard", killed_at("scenes-00001", bank.write_shard))
    with pytest.raises(KeyboardInterrupt):
        builder(tmp_path / "parts").fill(seconds=None, stop=Event(), **quiet)
    monkeypatch.undo()
    monkeypatch.setattr(bank, "SHARD_SCENES", 3)
    monkeypatch.setattr(bank, "drawn_scenes", lambda _, indices, *__: iter_scenes(indices, fake))
    fake.clear()
    resumed = builder(tmp_path / "parts")
    assert resumed.counted == 3
    assert resumed.fill(seconds=None, stop=Event(), **quiet)
    assert fake == [3, 4, 5, 6]
    for number in range(3):
        name = SHARD_FILES.format(number=number)
        whole, parts = ((tmp_path / run / name).read_bytes() for run in ("whole", "parts"))
        assert whole == parts


def iter_scenes(indices: range, drawn: list[int]) -> Iterator[SceneFeatures]:
    for index in indices:
        drawn.append(index)
        yield fake_scene(index)


def killed_at(name: str, write):  # type: ignore[no-untyped-def]
    """Writing that dies, with a half-written file left behind, at a shard."""

    def write_or_die(path: Path, scenes: list[SceneFeatures]) -> None:
        if path.name.startswith(name):
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        write(path, scenes)

    return write_or_die


def test_a_stop_leaves_whole_shards_only(tmp_path: Path, fake: list[int]) -> None:
    stop = Event()
    one = builder(tmp_path)
    assert not one.fill(seconds=None, workers=0, stop=stop, echo=lambda line: stop.set())
    record = read_record(tmp_path)
    assert record is not None and record.held_out and record.shards == 0
    assert {path.name for path in tmp_path.iterdir()} == {RECORD_FILE, HELD_OUT_FILE}


def test_a_time_limit_ends_a_bank_after_a_shard(tmp_path: Path, fake: list[int]) -> None:
    one = builder(tmp_path)
    assert one.fill(seconds=0.0, stop=Event(), **quiet)
    assert one.counted == 3
    assert builder(tmp_path).fill(seconds=None, stop=Event(), **quiet)


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint": replace(CHECKPOINT, sha256="1" * 64)},
        {"checkpoint": replace(CHECKPOINT, detection=replace(CHECKPOINT.detection, border=9))},
        {"data": replace(DATA, max_keypoints=41)},
        {"data": replace(DATA, photos=("elsewhere",))},
        {"seed": 2},
        {"held_out": 3},
    ],
)
def test_a_bank_of_other_weights_or_settings_is_refused(
    tmp_path: Path, fake: list[int], changes: dict[str, object]
) -> None:
    builder(tmp_path).fill(seconds=0.0, stop=Event(), **quiet)
    builder(tmp_path)
    with pytest.raises(TrainingError, match="another run"):
        builder(tmp_path, **changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 2}',
        '{"version": 1, "key": 5}',
        '{"version": 1, "key": {}, "shards": -1}',
        '{"version": 1, "key": {}, "seconds": "x"}',
        '{"version": 1, "key": {}, "other": 1}',
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD_FILE).write_text(text)
    with pytest.raises(TrainingError, match="not the record of a bank"):
        builder(tmp_path)


def test_damaged_shards_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "shard.safetensors"
    write_shard(path, [fake_scene(0)])
    assert len(Scenes([path])) == 1
    whole = path.read_bytes()
    other = fake_scene(1)
    cut = replace(other, xy=other.xy[:-1])
    write_shard(path, [cut])
    short = path.read_bytes()
    for data in (b"", whole[:100], whole[:-5], b"\xff" * 64, short):
        path.write_bytes(data)
        with pytest.raises(TrainingError, match="not a whole shard"):
            Scenes([path])
    path.unlink()
    with pytest.raises(TrainingError, match="not a whole shard"):
        Scenes([path])


def test_scenes_do_not_depend_on_the_number_of_workers() -> None:
    one = Drawing(CHECKPOINT, DATA, 3)
    here = list(drawn_scenes(one, range(2), 0, Event()))
    there = list(drawn_scenes(one, range(2), 2, Event()))
    for ours, theirs in zip(here, there, strict=True):
        for name in ("counts", "xy", "elsewhere", "doubtful", "cameras", "size_hw"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-3)
        assert ours.counts.shape == (VIEWS,) and ours.counts.sum() == len(ours.xy)
        own = np.repeat(np.arange(VIEWS), ours.counts)
        np.testing.assert_array_equal(ours.elsewhere[np.arange(len(own)), own], ours.xy)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_device_detects_what_workers_would_detect(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both in float32; of the positions, few change places at the limit of the best ones."""
    pytest.importorskip("torch")
    monkeypatch.setattr(matcher_workers, "Detector", partial(Detector, precision="f32"))
    expected = drawn_scenes(Drawing(CHECKPOINT, DATA, 3), range(2), 0, Event())
    on_device = Drawing(CHECKPOINT, DATA, 3, device="cpu")
    scenes = drawn_scenes(on_device, range(2), workers, Event())
    for ours, theirs in zip(scenes, expected, strict=True):
        np.testing.assert_array_equal(ours.cameras, theirs.cameras)
        np.testing.assert_array_equal(ours.counts, theirs.counts)
        for view in range(VIEWS):
            first, second = (positions_of(one, view) for one in (ours, theirs))
            gaps = np.linalg.norm(first[:, None] - second, axis=2).min(axis=1)
            assert (gaps < 0.02).mean() > 0.99
        own = np.repeat(np.arange(VIEWS), ours.counts)
        np.testing.assert_array_equal(ours.elsewhere[np.arange(len(own)), own], ours.xy)


def positions_of(scene: SceneFeatures, view: int) -> np.ndarray:
    end = int(scene.counts[: view + 1].sum())
    return scene.xy[end - int(scene.counts[view]) : end]


def test_a_stop_ends_the_detection_of_drawn_views() -> None:
    pytest.importorskip("torch")
    stop = Event()
    scenes = drawn_scenes(Drawing(CHECKPOINT, DATA, 3, device="cpu"), range(40), 2, stop)
    next(scenes)
    stop.set()
    assert len(list(scenes)) < 39


def test_an_error_of_a_worker_reaches_the_caller() -> None:
    one = Drawing(CHECKPOINT, replace(DATA, photos=("/nowhere",), photo_share=1.0), 3)
    with pytest.raises(TiepointError, match="nowhere"):
        list(drawn_scenes(one, range(3), 1, Event()))


def test_held_out_scenes_take_photographs_of_the_other_part(tmp_path: Path) -> None:
    import cv2

    from tiepoint.images.photographs import part_of

    names = [f"{number}.png" for number in range(30)]
    for folder, part in (("both", None), ("training", "training")):
        (tmp_path / folder).mkdir()
        for name in names:
            if part in (None, part_of(name)):
                cv2.imwrite(str(tmp_path / folder / name), np.zeros((80, 80), np.uint8))
    folders = tuple(str(tmp_path / name) for name in ("both", "training"))
    held_out = bank._held_out_data(replace(DATA, photos=folders))
    assert (held_out.part, held_out.photos) == ("development", folders[:1])
    assert DATA.part == "training"


def test_a_dead_worker_is_reported() -> None:
    scenes = drawn_scenes(Drawing(CHECKPOINT, DATA, 3), range(9), 1, Event())
    next(scenes)
    [worker] = multiprocessing.active_children()
    worker.kill()
    worker.join(5)
    with pytest.raises(TiepointError, match="died"):
        list(scenes)


def test_workers_get_work_before_each_scene_is_given_away() -> None:
    """The caller may take long, and workers must not wait for it."""
    ours, theirs = zip(*(multiprocessing.Pipe() for _ in range(2)), strict=True)
    scenes = matcher_workers._in_order(list(ours), range(5), Event())
    for worker in theirs:
        worker.send((0 if worker is theirs[1] else 1, "scene"))
    assert next(scenes) == "scene"
    assert sorted(requests(theirs)) == [0, 1, 2, 3]
    theirs[0].send((2, "scene"))
    assert next(scenes) == "scene"  # the second, which was there already
    assert requests(theirs) == [4]


def requests(workers: Iterable[Connection]) -> list[int]:
    """The requests that workers have not read."""
    numbers = []
    for worker in workers:
        while worker.poll():
            numbers.append(worker.recv())
    return numbers


def test_each_scene_has_one_of_the_nms_radii() -> None:
    radii = set()

    class Recording:
        checkpoint = CHECKPOINT

        def __call__(self, images: list[np.ndarray], **options: object) -> object:
            radii.add(options["nms_radius"])
            return detector(images, **options)

    detector = Drawing(CHECKPOINT, DATA, 3).detector(1)
    for index in range(6):
        drawing.scene_features(Recording(), DATA, 3, index)  # type: ignore[arg-type]
    own = CHECKPOINT.detection.nms_radius
    assert radii == {own, own + drawing.WIDER_RADIUS_PX}


def test_the_record_is_plain_json(tmp_path: Path, fake: list[int]) -> None:
    builder(tmp_path).fill(seconds=0.0, stop=Event(), **quiet)
    values = json.loads((tmp_path / RECORD_FILE).read_text())
    assert (values["version"], values["shards"], values["scenes"]) == (1, 1, 3)
    assert values["key"]["checkpoint_sha256"] == CHECKPOINT.sha256
    assert bank.data_of(read_record(tmp_path)) == DATA  # type: ignore[arg-type]
