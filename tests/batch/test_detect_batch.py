"""`DetectBatch`: tables in, tables out, with the features of `Detector`."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tiepoint import Detector, weights
from tiepoint.batch import DetectBatch
from tiepoint.batch.detect_batch import ERROR, INPUTS
from tiepoint.errors import ConfigError
from tiepoint.features import Features
from tiepoint.formats.shard_files import COLUMNS, LISTS

OPTIONS: dict[str, Any] = {"max_keypoints": 20, "device": "cpu", "precision": "f32"}


@pytest.fixture
def photos(here: Path) -> list[str]:
    rng = np.random.default_rng(5)
    for number in range(3):
        noise = rng.integers(0, 256, (12, 16 + number), dtype=np.uint8)
        image = cv2.resize(noise, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
        (here / f"{number}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return [f"{number}.png" for number in range(3)]


@pytest.fixture(scope="module")
def detect() -> DetectBatch:
    return DetectBatch("small", **OPTIONS)


def expected(sources: list[Any]) -> list[Features]:
    stream = Detector("small", **OPTIONS).stream(iter(sources))
    return [detection.require() for detection in stream]


def check_row(row: Any, features: Features) -> None:
    """Compare a row, which has items by the name of the column."""
    assert (row["height"], row["width"]) == features.size_hw and row["error"] is None
    xy = np.stack([row["x"], row["y"]], axis=1)
    np.testing.assert_array_equal(xy.astype(np.float32), features.xy)
    np.testing.assert_array_equal(np.array(row["score"], np.float32), features.scores)
    descriptors = np.array(row["descriptors"], np.float32).reshape(-1, row["descriptor_length"])
    np.testing.assert_array_equal(descriptors, features.descriptors)


def test_paths_bytes_and_arrays_have_the_features_of_the_detector(
    photos: list[str], detect: DetectBatch
) -> None:
    files = [Path(name).read_bytes() for name in photos]
    arrays = [cv2.imread(name, cv2.IMREAD_GRAYSCALE) for name in photos]
    features = expected(photos)
    for column, cells in zip(INPUTS, (files, arrays, photos), strict=True):
        result = detect({column: cells, "label": [1, 2, 3]})
        assert list(result) == [*COLUMNS, ERROR]
        for number, one in enumerate(features):
            check_row({name: result[name][number] for name in result}, one)
    assert list(detect({"path": photos})["name"]) == photos
    assert list(detect({"bytes": files, "path": photos, "name": ["a", "b", "c"]})["name"]) == [
        "a", "b", "c",
    ]  # fmt: skip


def test_a_stack_of_images_is_a_column_too(detect: DetectBatch) -> None:
    stack = np.random.default_rng(1).integers(0, 256, (2, 64, 80, 3), dtype=np.uint8)
    result = detect({"image": stack})
    for number, one in enumerate(expected(list(stack))):
        check_row({name: result[name][number] for name in result}, one)


def test_a_row_that_fails_has_its_reason_and_harms_no_other(
    photos: list[str], detect: DetectBatch
) -> None:
    cells = [b"no image", Path(photos[0]).read_bytes(), None, float("nan")]
    result = detect({"content": cells} | {"path": ["w.png", "x.png", "y.png", "z.png"]})
    assert "z.png" in str(result["error"][3])  # paths were taken, of files that are not there
    by_column = DetectBatch("small", column="content", **OPTIONS)({"content": cells})
    errors = list(by_column["error"])
    assert "not an image" in errors[0] and errors[1] is None
    assert errors[2:] == ["the row has no image"] * 2
    check_row({name: by_column[name][1] for name in by_column}, expected([cells[1]])[0])
    assert all(by_column[name][0] is None for name in COLUMNS if name != "name")
    uneven = detect({"image": [[[1, 2], [3]], np.zeros((40, 40), np.uint8)]})["error"]
    assert "rows of one length" in uneven[0] and uneven[1] is None


def test_tables_of_arrow_have_the_schema_of_parquet_shards(
    photos: list[str], detect: DetectBatch
) -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"path": [*photos, "none.png"]})
    result = detect(table)
    assert result.schema.equals(DetectBatch.arrow_schema()) and result.num_rows == 4
    for row, one in zip(result.to_pylist(), expected(photos), strict=False):
        check_row(row, one)
    assert "none.png" in result.to_pylist()[3]["error"]
    batch = table.to_batches()[0]
    assert detect(batch).equals(result.combine_chunks().to_batches()[0])
    empty = detect(table.slice(0, 0))
    assert empty.num_rows == 0 and empty.schema.equals(result.schema)


def test_frames_of_pandas_keep_their_index(photos: list[str], detect: DetectBatch) -> None:
    pd = pytest.importorskip("pandas")
    result = detect(pd.DataFrame({"path": photos}, index=[7, 8, 9]))
    assert list(result.index) == [7, 8, 9] and list(result.columns) == [*COLUMNS, ERROR]
    for (_, row), one in zip(result.iterrows(), expected(photos), strict=True):
        check_row(row, one)
    empty = detect(pd.DataFrame({"path": []}))
    assert len(empty) == 0 and list(empty.dtypes) == list(result.dtypes)


def test_a_copy_in_another_process_gives_the_same(photos: list[str], detect: DetectBatch) -> None:
    copy = pickle.loads(pickle.dumps(detect))
    code = (
        "import pickle, sys; detect = pickle.load(sys.stdin.buffer);"
        f"sys.stdout.buffer.write(pickle.dumps(detect({{'path': {photos!r}}})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(copy), capture_output=True, check=True,
        timeout=300,
    )  # fmt: skip
    there, here = pickle.loads(done.stdout), detect({"path": photos})
    for name in (*LISTS, "name", "meta"):
        for mine, theirs in zip(here[name], there[name], strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_the_network_is_loaded_once_by_the_first_image(
    photos: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiepoint import detector as module

    made = []

    class Counted(Detector):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            made.append(arguments)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(module, "Detector", Counted)
    detect = DetectBatch("small", **OPTIONS)
    assert len(detect({"path": []})["name"]) == 0 and detect({"path": [None]})["error"][0]
    assert made == []
    for copy in (detect, pickle.loads(pickle.dumps(detect))):
        copy({"path": photos})
    assert len(made) == 1


def test_a_relative_folder_of_weights_is_found_from_elsewhere(
    photos: list[str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(Path(weights.__file__).parent / "bundled" / "small", here / "mine")
    detect = DetectBatch("mine", **OPTIONS)
    (here / "other").mkdir()
    monkeypatch.chdir(here / "other")
    assert detect({"path": [str(here / photos[0])]})["error"][0] is None


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": [1]}, "no column bytes or image or path, but x"),
        ([1], "a batch is a mapping of columns"),
    ],
)
def test_a_batch_without_images_is_refused(batch: Any, message: str, detect: DetectBatch) -> None:
    with pytest.raises(ConfigError, match=message):
        detect(batch)


def test_wrong_options_are_refused_before_any_process_has_them() -> None:
    with pytest.raises(ConfigError, match="unknown option max_keypoint"):
        DetectBatch("small", max_keypoint=3)
