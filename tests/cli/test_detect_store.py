"""`tiepoint detect -o NAME.store`, and the commands that read a store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from support.features_files import assert_equal
from support.store_runs import tar
from tiepoint.cli import app
from tiepoint.formats import load, read_matches_h5
from tiepoint.formats.many_images import read_features

pytest.importorskip("h5py")

NAMES = ["a.png", "b.png", "사진/c d.png", "e.png"]


@pytest.fixture
def photos(here: Path) -> Path:
    """Views of one picture, shifted by a few px."""
    noise = np.random.default_rng(3).integers(0, 256, (16, 20), dtype=np.uint8)
    whole = cv2.resize(noise, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    for shift, name in enumerate(NAMES):
        path = here / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        view = np.ascontiguousarray(whole[shift : 96 + shift, shift : 128 + shift])
        path.write_bytes(cv2.imencode(".png", view)[1].tobytes())
    return here / "photos"


def tiepoint(*arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)])


def detect(*arguments: object) -> Any:
    return tiepoint("detect", *arguments, "-c", "small")


def test_a_store_has_the_features_of_a_folder_and_resumes(photos: Path, here: Path) -> None:
    first = detect("photos", "-o", "x.store", "--shards", 2)
    assert first.exit_code == 0, first.output
    assert "4 done" in first.stderr and first.stdout.splitlines()[0].startswith("image")
    again = detect("photos", "-o", "x.store/")
    assert again.exit_code == 0 and "4 skipped" in again.stderr
    assert detect("photos", "-o", "folder").exit_code == 0
    features = read_features("x.store")
    assert set(features) == set(NAMES)
    for name in NAMES:
        mine, single = features[name], load(here / "folder" / f"{name}.npz")
        np.testing.assert_allclose(mine.xy, single.xy, atol=1e-3)
        assert mine.provenance == single.provenance
    assert {path.suffix for path in (here / "x.store").iterdir()} == {".h5", ".json"}


def test_a_store_of_parquet_has_the_same_features(photos: Path) -> None:
    pytest.importorskip("pyarrow")
    for name, layout in (("h.store", "h5"), ("p.store", "parquet")):
        assert detect("photos", "-o", name, "--format", layout).exit_code == 0
    both = read_features("h.store"), read_features("p.store")
    for name in NAMES:
        assert_equal(both[0][name], both[1][name])
    assert "4 skipped" in detect("photos", "-o", "p.store").stderr


def test_workers_of_a_job_array_make_one_store(photos: Path) -> None:
    runs = [detect("photos", "-o", "x.store", "--shards", 3, "--shard", f"{i}/3") for i in range(3)]
    assert {run.exit_code for run in runs} == {0}
    idle = detect("photos", "-o", "x.store", "--shard", "3/4")
    assert idle.exit_code == 0 and "no image for run 3 of 4" in idle.stderr
    assert set(read_features("x.store")) == set(NAMES)


def test_failures_are_listed_by_info_and_tried_again_when_asked(photos: Path) -> None:
    (photos / "bad.png").write_bytes(b"no image")
    first = detect("photos", "-o", "x.store")
    assert first.exit_code == 1 and "4 done, 1 failed" in first.stderr
    shown = tiepoint("info", "x.store")
    assert shown.exit_code == 0 and "failed until --retry-failed: photos/bad.png" in shown.stdout
    facts = json.loads(tiepoint("info", "x.store", "--json").stdout)
    assert facts["images"] == 4 and [one["name"] for one in facts["failures"]] == ["bad.png"]
    assert facts["provenance"]["checkpoint"] == "small"
    again = detect("photos", "-o", "x.store")
    assert again.exit_code == 1 and "4 skipped, 1 failed" in again.stderr
    (photos / "bad.png").write_bytes((photos / "a.png").read_bytes())
    assert detect("photos", "-o", "x.store", "--retry-failed").exit_code == 0
    assert tiepoint("info", "photos").exit_code == 2


def test_other_weights_and_settings_are_refused_by_name(photos: Path) -> None:
    assert detect("photos", "-o", "x.store").exit_code == 0
    other = tiepoint("detect", "photos", "-o", "x.store", "-c", "large")
    assert other.exit_code == 1
    assert "checkpoint 'small' instead of 'large'" in other.stderr
    limited = detect("photos", "-o", "x.store", "--max-keypoints", 5)
    assert "settings.max_keypoints None instead of 5" in limited.stderr
    assert detect("photos", "-o", "x.store", "--max-keypoints", 5, "--overwrite").exit_code == 0
    assert {len(one) for one in read_features("x.store").values()} == {5}


def test_a_tar_goes_to_a_store(photos: Path, here: Path) -> None:
    tar(here / "x.tar", {name: (photos / name).read_bytes() for name in NAMES})
    result = detect("x.tar", "-o", "x.store", "--json")
    assert result.exit_code == 0
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["source"] for row in rows] == [f"x.tar/{name}" for name in NAMES]
    assert set(read_features("x.store")) == set(NAMES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "out", "--shards", 2], "--shards is for stores: give -o NAME.store"),
        (["-o", "x.h5", "--shard", "0/2"], "--shard is for stores"),
        (["-o", "out", "--retry-failed"], "--retry-failed is for stores"),
        (["-o", "out", "--ray", "auto"], "--ray is for stores"),
        (["-o", "x.store", "--shard", "2/2"], "numbered from 0 to 1"),
        (["-o", "x.store", "--shard", "one"], "such as 0/8"),
        (["-o", "x.store", "--format", "csv"], "the files of a store are h5 or parquet"),
        (["-o", "x.store", "--format", "parquet", "--half"], ".parquet files hold float32"),
        (["-o", "x.store", "--plot"], "a store holds no images"),
        (["-o", "photos/a.png/x.store"], "cannot be made"),
        (["-o", "out", "--format", "h5"], "name one .h5 file for all images"),
    ],
)
def test_wrong_options_are_refused_before_any_work(
    photos: Path, arguments: list[object], message: str
) -> None:
    result = detect("photos", *arguments)
    assert result.exit_code == 2 and message in result.stderr, result.output
    assert not (photos.parent / "x.store" / "manifest.json").exists()


def test_an_empty_source_is_nothing_readable(here: Path) -> None:
    (here / "empty").mkdir()
    result = detect("empty", "-o", "x.store")
    assert result.exit_code == 3 and "no image found in empty" in result.stderr
    assert not (here / "x.store").exists()


def test_match_colmap_and_evaluate_read_a_store(photos: Path, here: Path) -> None:
    assert detect("photos", "-o", "x.store", "--shards", 2).exit_code == 0
    matched = tiepoint("match", "--features", "x.store", "-o", "m.h5", "--pairs", "sequential")
    assert matched.exit_code == 0, matched.output
    order = sorted(NAMES, key=lambda name: name.replace("/", "\0"))
    pairs = {(a, b) for number, a in enumerate(order) for b in order[number + 1 :]}
    assert set(read_matches_h5("m.h5")) <= pairs and len(read_matches_h5("m.h5")) >= 3
    written = tiepoint("colmap", "photos", "--features", "x.store", "-o", "d.db", "--quiet")
    assert written.exit_code == 0, written.output
    again = tiepoint("colmap", "photos", "--features", "x.store", "-o", "d.db")
    assert again.exit_code == 0 and "4 skipped" in again.stderr
    from tiepoint.evaluation.methods import stored_method

    method = stored_method("mine=x.store")
    image = np.zeros((96, 128), np.uint8)
    assert len(method.features(image, "a.png", 10)) == len(read_features("x.store")["a.png"])


def test_colmap_names_images_without_features_and_refuses_masks(photos: Path, here: Path) -> None:
    assert detect(photos / "a.png", photos / "b.png", "-o", "x.store").exit_code == 0
    result = tiepoint("colmap", "photos", "--features", "x.store", "-o", "d.db")
    assert result.exit_code == 1 and "no features of an image 'e.png'" in result.stderr
    assert "skipped" not in result.output
    again = tiepoint("colmap", "photos", "--features", "x.store", "-o", "d.db")
    assert again.stdout.count("skipped") == 3  # two images and their pair
    (here / "masks").mkdir()
    masked = tiepoint(
        "colmap", "photos", "--features", "x.store", "--masks", "masks", "-o", "e.db",
    )  # fmt: skip
    assert masked.exit_code == 2 and "--masks is for detection" in masked.stderr
    missing = tiepoint("colmap", "photos", "--features", "none.h5", "-o", "e.db")
    assert missing.exit_code == 3
