"""What the arguments of `tiepoint view` show, and fits after changes by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiepoint
from support.fake_detector import FakeDetector
from support.store_runs import fill
from support.view_server import MATRIX, scene, write_features, write_image, write_pair
from tiepoint.errors import ConfigError, FormatError, ImageError
from tiepoint.geometry import apply_homography
from tiepoint.service.view import payload
from tiepoint.service.view.edits import Edit, Fitted
from tiepoint.service.view.inputs import open_session
from tiepoint.service.view.session import Session


@pytest.fixture
def pair(tmp_path: Path) -> Session:
    return open_session(write_pair(tmp_path))


def only_pair(session: Session) -> str:
    (pair_id,) = session.pairs
    return pair_id


def test_images_folders_and_features_are_items(here: Path) -> None:
    (here / "photos").mkdir()
    for name in ("one", "two", "three"):
        write_image(here / "photos" / f"{name}.png", scene(1, (40, 50)))
    features = write_features(here / "f.json", here / "photos" / "one.png", [[1, 2]], (40, 50))
    session = open_session(["photos", str(features)])
    assert [item.name for item in session.items.values()] == [
        "one.png", "one.png", "three.png", "two.png",
    ]  # fmt: skip
    assert session.pairs == {}
    stored = next(iter(session.items))
    assert len(session.features(stored)) == 1
    assert session.source(stored).size_hw == (40, 50)


def test_ids_are_the_same_in_the_next_run_and_contain_no_path(here: Path) -> None:
    write_image(here / "secret-name.png", scene(1, (40, 50)))
    first, second = (open_session(["secret-name.png"]) for _ in range(2))
    assert list(first.items) == list(second.items)
    assert all(set(name) <= set("0123456789abcdef") for name in first.items)


def test_two_images_are_a_pair_and_three_are_none(here: Path) -> None:
    for name in "abc":
        write_image(here / f"{name}.png", scene(1, (40, 50)))
    assert len(open_session(["a.png", "b.png"]).pairs) == 1
    assert open_session(["a.png", "b.png", "c.png"]).pairs == {}


def test_a_folder_of_features_finds_its_images(here: Path) -> None:
    (here / "out").mkdir()
    image = write_image(here / "x.png", scene(1, (40, 50)))
    write_features(here / "out" / "x.png.npz", image, [[3, 4], [5, 6]], (40, 50))
    session = open_session(["out"])
    (item,) = session.items.values()
    assert item.name == "x.png" and session.source(item.id).size_hw == (40, 50)
    moved = open_session(["out"], images=here / "elsewhere")
    with pytest.raises(ImageError, match="elsewhere"):
        moved.image(next(iter(moved.items)))


def test_features_never_lead_to_a_url(here: Path) -> None:
    image = write_image(here / "x.png", scene(1, (40, 50)))
    features = tiepoint.load(write_features(here / "f.npz", image, [[1, 2]], (40, 50)))
    elsewhere = {"source": "http://localhost:1/x.png"}
    tiepoint.save(replace(features, meta=elsewhere), here / "f.npz")
    session = open_session([str(here / "f.npz")])
    with pytest.raises(ImageError, match="--images"):
        session.image(next(iter(session.items)))


def test_a_store_never_leads_to_a_url(here: Path) -> None:
    write_image(here / "x.png", scene(1, (40, 50)))
    fill(here / "f.store", "x.png", detector=FakeDetector())
    record = here / "f.store" / "00000.json"
    listed = json.loads(record.read_text())
    listed["images"][0][-1] = "http://localhost:1/x.png"
    record.write_text(json.dumps(listed))
    session = open_session(["f.store"])
    shown = session.image(next(iter(session.items)))
    assert shown.name.endswith("x.png") and "localhost" not in shown.name  # as its features state


def test_a_registration_never_leads_to_a_url(here: Path) -> None:
    write_pair(here)
    result = tiepoint.register("a.png", "b.png", model="affine").summary()
    record = {"a": "a.png", "b": "http://localhost:1/b.png", **result}
    (here / "r.json").write_text(json.dumps(record))
    with pytest.raises(FormatError, match="URLs in a file are never requested"):
        open_session(["r.json"])


def test_nothing_to_show_is_an_error_that_names_the_arguments(here: Path) -> None:
    (here / "empty").mkdir()
    with pytest.raises((ConfigError, FormatError), match="empty"):
        open_session(["empty"])
    write_pair(here)
    with pytest.raises(ConfigError, match="two features files"):
        open_session(["a.npz", "matches.npz"])


def test_a_recorded_registration_is_a_pair_of_its_images(here: Path) -> None:
    write_pair(here)
    result = tiepoint.register("a.png", "b.png", model="affine")
    record = {"a": "a.png", "b": "b.png", **result.summary()}
    (here / "r.json").write_text(json.dumps(record))
    session = open_session(["r.json"])
    (one,) = session.pairs.values()
    assert one.config.model == "affine" and one.recorded is not None
    again = session.fit(one.id).registration
    assert again.success == result.success
    for damage in ({"model": "cubic"}, {"model": []}, {"matrix": 5}, {"matrix": [["x"] * 3] * 3}):
        (here / "r.json").write_text(json.dumps({**record, **damage}))
        with pytest.raises(FormatError, match="registration"):
            open_session(["r.json"])


def test_damaged_matches_are_an_error_with_their_path(here: Path) -> None:
    write_pair(here)
    whole = (here / "matches.npz").read_bytes()
    entry = whole.index(b"PK\x01\x02")
    (here / "matches.npz").write_bytes(whole[: entry + 6] + b"\xff\xff" + whole[entry + 8 :])
    with pytest.raises(FormatError, match=r"matches\.npz"):  # made by another version of zip
        open_session(["a.npz", "b.npz", "matches.npz"])


def test_the_fit_of_stored_matches_finds_the_model_and_the_wrong_ones(pair: Session) -> None:
    fitted = pair.fit(only_pair(pair))
    result = fitted.registration
    assert result.success and result.inliers.sum() == 70
    corners = [[0, 0], [300, 200]]
    np.testing.assert_allclose(
        result.transform(corners), apply_homography(MATRIX, corners), atol=0.1
    )
    residuals = payload.residuals_px(result)
    states = payload.states_of(result, residuals)
    assert (states == np.where(result.inliers, payload.INLIER, payload.FAR)).all()
    expected = result.xy_b - result.transform(result.xy_a)
    np.testing.assert_allclose(residuals, expected, atol=1e-6)


def test_an_edit_equals_a_registration_of_the_changed_matches(pair: Session) -> None:
    pair_id = only_pair(pair)
    base = pair.fit(pair_id).registration
    place = [150.25, 90.5]
    there = apply_homography(MATRIX, [place])[0]
    fitted = pair.fit(pair_id, Edit((3, 75), ((*place, *there),)))
    kept = np.setdiff1d(np.arange(80), [3, 75])
    np.testing.assert_array_equal(fitted.origin, [*kept, -1])
    result = fitted.registration
    np.testing.assert_allclose(result.xy_a[-1], place)
    np.testing.assert_allclose(result.xy_b[:-1], base.xy_b[kept])
    assert result.success and result.inliers[-1] and len(result.matches) == 79


def test_too_few_matches_are_a_verdict_and_not_an_error(pair: Session) -> None:
    fitted: Fitted = pair.fit(only_pair(pair), Edit(tuple(range(78))))
    assert not fitted.registration.success
    assert "2 matches" in fitted.registration.reason
    states = payload.states_of(fitted.registration, payload.residuals_px(fitted.registration))
    assert (states == payload.NO_MODEL).all()


@pytest.mark.parametrize("edit", [Edit((80,)), Edit((-1,)), Edit((), ((np.nan, 0.0, 0.0, 0.0),))])
def test_an_edit_of_what_is_not_there_is_refused(pair: Session, edit: Edit) -> None:
    with pytest.raises(ConfigError):
        pair.fit(only_pair(pair), edit)


def test_residuals_of_a_fundamental_matrix_end_on_the_epipolar_line(tmp_path: Path) -> None:
    a, b, matches = (tmp_path / name for name in ("a.npz", "b.npz", "matches.npz"))
    write_pair(tmp_path)
    features = tiepoint.load(a), tiepoint.load(b)
    fundamental = np.array([[0, 1e-5, -0.01], [-1e-5, 0, 0.02], [0.01, -0.02, 0.5]])
    result = tiepoint.Registration(
        True, "ok", "fundamental", fundamental, *features,
        tiepoint.load_matches(matches), np.zeros(80, bool),
    )  # fmt: skip
    assert payload.fundamental_of(result) is fundamental
    residuals = payload.residuals_px(result, fundamental)
    foot = result.xy_b - residuals
    lines = np.column_stack([result.xy_a, np.ones(80)]) @ fundamental.T
    on_line = (lines[:, :2] * foot).sum(axis=1) + lines[:, 2]
    np.testing.assert_allclose(on_line, 0, atol=1e-6)
    along = np.column_stack([-lines[:, 1], lines[:, 0]])
    np.testing.assert_allclose((along * residuals).sum(axis=1), 0, atol=1e-6)


def test_the_nearest_descriptors_are_those_of_a_full_comparison(pair: Session) -> None:
    a, b = (pair.features(item_id) for item_id in pair.items)
    found = payload.nearest(a, 7, {"b": b})
    assert a.descriptors is not None and b.descriptors is not None
    cosines = b.descriptors.astype(float) @ a.descriptors[7].astype(float)
    assert [one.row for one in found] == np.argsort(-cosines)[:5].tolist()
    assert found[0].cosine == pytest.approx(cosines.max())
    assert payload.nearest(a, 80, {"b": b}) == []
