"""`match` of images: detected first, as `register` does."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiepoint
from tiepoint.errors import ConfigError, ImageError
from tiepoint.matching.views import kept
from tiepoint.weights.checkpoint import BUNDLED


@pytest.fixture(scope="module")
def detector() -> tiepoint.Detector:
    return tiepoint.Detector("small", device="cpu", precision="f32", max_side=200, scales=(1,))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, photographs) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("images")
    paths = folder / "a.png", folder / "b.png"
    for path in paths:
        Image.fromarray(photographs[0][: 200 + 8 * len(path.stem), :200]).save(path)
    return str(paths[0]), paths[1]


def same(left: tiepoint.Matches, right: tiepoint.Matches) -> bool:
    return np.array_equal(left.pairs, right.pairs) and np.array_equal(left.scores, right.scores)


def test_images_give_the_matches_of_their_features(detector, files) -> None:
    features = [detector(path) for path in files]
    expected = tiepoint.match(*features)
    assert len(expected) > 20
    assert same(tiepoint.match(*files, detector=detector), expected)
    mixed = tiepoint.match(np.asarray(Image.open(files[0])), features[1], detector=detector)
    assert same(mixed, expected)
    options = {"ratio": 0.9, "min_similarity": 0.8}
    assert same(
        tiepoint.match(*files, detector=detector, **options), tiepoint.match(*features, **options)
    )


def test_without_a_detector_the_checkpoint_is_taken(files) -> None:
    expected = tiepoint.match(*(tiepoint.Detector("small")(path) for path in files))
    found = tiepoint.match(*files, checkpoint="small")
    assert same(found, expected) and found.meta["checkpoint"] == expected.meta["checkpoint"]


def test_masks_are_for_images(detector, files) -> None:
    left = np.zeros((208, 200), bool)
    left[:, :100] = True
    masked = tiepoint.match(*files, detector=detector, mask_a=left)
    features = detector(files[0], mask=left)
    assert same(masked, tiepoint.match(features, files[1], detector=detector))
    with pytest.raises(ConfigError, match="a mask is given with Features"):
        tiepoint.match(features, files[1], detector=detector, mask_a=left)
    with pytest.raises(ImageError, match="its mask"):
        tiepoint.match(*files, detector=detector, mask_b=left[:5])


@pytest.mark.parametrize("wrong", [None, 5, {}, object(), 1.5, tiepoint.Detector])
@pytest.mark.parametrize("function", [tiepoint.match, tiepoint.register])
def test_a_wrong_type_is_named(function, wrong, detector) -> None:
    expected = f"two images or their Features, got an object of type {type(wrong).__name__}: pass"
    with pytest.raises(ConfigError, match=expected):
        function(wrong, wrong, detector=detector)
    with pytest.raises(ConfigError, match="one image at a time, got a list"):
        function([wrong], wrong, detector=detector)


def test_matches_in_place_of_features_are_named(detector, files) -> None:
    features = detector(files[0])
    with pytest.raises(ConfigError, match="got an object of type Matches"):
        tiepoint.match(features, tiepoint.match(features, features))


@pytest.mark.parametrize("function", [tiepoint.match, tiepoint.register])
def test_a_checkpoint_that_is_replaced_is_loaded_again(tmp_path: Path, files, function) -> None:
    folder = tmp_path / "mine"
    used = []
    for bundled in ("small", "small", "base"):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(BUNDLED / bundled, folder)
        result = function(*files, checkpoint=str(folder))
        matches = result if function is tiepoint.match else result.matches
        used.append(matches.meta["weights_sha256"])
    assert used[0] == used[1] != used[2]


def test_a_checkpoint_that_stays_the_same_is_loaded_once(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED / "small", tmp_path / "mine")
    loads: list[str] = []
    get = kept(lambda name: loads.append(name) or object())
    first = get(str(tmp_path / "mine"))
    assert get(str(tmp_path / "mine")) is first and get("small") is not first
    assert len(loads) == 2
