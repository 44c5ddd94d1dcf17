"""The routes: who may ask, for what, and how errors are answered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the page needs the extra serve")
pytest.importorskip("uvicorn", reason="the page needs the extra serve")

from support.view_server import Served, scene, serving_of, unpacked, write_image, write_pair
from tiepoint.service.view import payload
from tiepoint.service.view.guard import Guard
from tiepoint.service.view.inputs import open_session


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("pair")
    session = open_session(write_pair(folder))
    Path(folder, "b.png").write_bytes(b"no image any more")
    with serving_of(session) as running:
        yield running


ROUTES = (
    "/", "/page/view.js", "/api/session", "/api/items", "/api/images/x", "/api/sources/x",
    "/api/tiles/x/0/0/0", "/api/images/x/points", "/api/images/x/patch?x=0&y=0",
)  # fmt: skip


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("token", [None, "wrong", "ünicode"])
def test_no_route_answers_without_the_token(served: Served, path: str, token: str | None) -> None:
    quoted = None if token is None else token.encode().decode("latin-1")
    answer = served.request(path, token=quoted)
    assert answer.status == 403 and b"token" in answer.body
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.", ""])
def test_another_host_is_refused_whatever_the_token(served: Served, host: str) -> None:
    assert served.request("/api/session", headers={"Host": host}).status == 421


def test_a_request_of_another_page_is_refused(served: Served) -> None:
    (pair,) = served.session.pairs
    path = f"/api/pairs/{pair}/fit"
    for origin in ("http://evil.example", "null"):
        answer = served.request(path, method="POST", body={}, headers={"Origin": origin})
        assert answer.status == 403
    own = {"Origin": served.root.rstrip("/")}
    assert served.request(path, method="POST", body={}, headers=own).status == 200


def test_the_url_with_the_token_gives_a_cookie_and_leaves_the_address(served: Served) -> None:
    answer = served.request(f"/?token={served.guard.token}", token=None)
    cookie = answer.headers["set-cookie"]
    assert answer.status == 303 and answer.headers["location"] == "/"
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
    assert served.request("/?token=wrong").status == 403
    assert served.request("/api/session?token=" + served.guard.token, token=None).status == 403


def test_tokens_differ_and_are_long() -> None:
    tokens = {Guard(1).token for _ in range(20)}
    assert len(tokens) == 20 and min(map(len, tokens)) >= 32
    assert Guard(1).token not in repr(Guard(1))


def test_the_page_has_no_inline_script_or_style(served: Served) -> None:
    page = served.request("/")
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy and "script-src 'self'" in policy
    text = page.body.decode()
    assert "<style" not in text and "style=" not in text
    assert all("src=" in tag for tag in text.split("<script")[1:])


@pytest.mark.parametrize("name", ["../routes.py", "..%2Froutes.py", "index.html", "view.js.map"])
def test_only_the_files_of_the_page_are_served(served: Served, name: str) -> None:
    assert served.request(f"/page/{name}").status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/api/images/..%2F..%2Fetc%2Fpasswd",
        "/api/tiles/etc-passwd/0/0/0",
        "/api/tiles/0/0/0/0",
        "/api/sources/none",
        "/api/images/none/points",
        "/api/images/none/thumbnail",
    ],
)
def test_ids_of_no_image_are_not_found(served: Served, path: str) -> None:
    assert served.request(path).status == 404


def test_a_broken_image_is_an_error_and_the_rest_works(served: Served) -> None:
    a, b = served.session.items
    broken = served.request(f"/api/images/{b}").json()
    assert "b.png" in broken["error"]
    tile = served.request(f"/api/tiles/{b}/0/0/0")
    assert tile.status == 422 and "b.png" in tile.json()["error"]["message"]
    assert served.request(f"/api/images/{b}/thumbnail").status == 422
    assert served.request(f"/api/images/{b}/points").status == 200
    assert served.request(f"/api/images/{a}").json()["error"] is None
    assert served.request(f"/api/tiles/{a}/0/0/0").body.startswith(b"\x89PNG")


def test_points_arrive_with_the_bits_of_the_features(served: Served) -> None:
    a, _ = served.session.items
    meta, arrays = unpacked(served.request(f"/api/images/{a}/points").body)
    features = served.session.features(a)
    table = arrays["points"]
    np.testing.assert_array_equal(table[:, :2], features.xy)
    np.testing.assert_array_equal(table[:, 2], features.scores)
    np.testing.assert_array_equal(table[:, 3], features.scales_px)
    np.testing.assert_allclose(table[:, 4:], np.tile([0.25, 0.1, 0.16], (80, 1)), rtol=1e-6)
    assert meta["count"] == 80 and meta["size_hw"] == [240, 320]


def test_a_fit_arrives_with_its_figures_and_states(served: Served) -> None:
    (pair,) = served.session.pairs
    answer = served.request(
        f"/api/pairs/{pair}/fit", method="POST", body={"removed": [0], "added": [[1, 2, 3, 4]]}
    )
    meta, arrays = unpacked(answer.body)
    table = arrays["matches"]
    assert meta["success"] and meta["matches"] == len(table) == 80
    assert table[:, 8].tolist() == [*range(1, 80), -1]
    assert table[-1, :4].tolist() == [1, 2, 3, 4] and table[-1, 5] == payload.FAR
    assert int((table[:, 5] == payload.INLIER).sum()) == meta["inliers"] == 69


@pytest.mark.parametrize(
    "body",
    [[], {"removed": "x"}, {"added": [[1, 2, 3]]}, {"added": [["a"] * 4]}, {"removed": [1e400]}],
)
def test_a_malformed_edit_is_refused(served: Served, body: object) -> None:
    (pair,) = served.session.pairs
    answer = served.request(f"/api/pairs/{pair}/fit", method="POST", body=body)
    assert answer.status == 422


def test_items_come_in_pages_and_by_name(served: Served) -> None:
    listed = served.request("/api/items?limit=1").json()
    assert listed["total"] == 2 and len(listed["items"]) == 1
    found = served.request("/api/items?q=B.PN").json()
    assert [item["name"] for item in found["items"]] == ["b.png"]
    assert served.request("/api/items?offset=-5&limit=-1").json()["items"] == []


def test_a_name_that_is_no_unicode_hides_no_other_image(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"no image")
    except OSError:
        pytest.skip("the file system has names in Unicode only")
    write_image(tmp_path / "b.png", scene(1, (40, 50)))
    with serving_of(open_session([str(tmp_path)])) as running:
        listed = running.request("/api/items").json()["items"]
        assert sorted(one["name"] for one in listed) == ["b.png", "\udcff.png"]
        assert running.request("/api/session").status == 200
        broken = next(one["id"] for one in listed if one["name"] != "b.png")
        refused = running.request(f"/api/images/{broken}/points")
        assert refused.status == 422 and "\udcff.png" in refused.json()["error"]["message"]


def test_nearest_descriptors_of_the_other_image_of_a_pair(served: Served) -> None:
    (pair,) = served.session.pairs
    a, b = served.session.items
    near = served.request(f"/api/pairs/{pair}/nearest?side=a&index=0").json()
    assert len(near) == 5 and {one["image"] for one in near} == {b}
    assert served.request(f"/api/pairs/{pair}/nearest?side=a&index=999").json() == []
    served.request(f"/api/images/{b}/points")
    elsewhere = served.request(f"/api/images/{a}/nearest?index=0").json()
    assert [one["row"] for one in elsewhere] == [one["row"] for one in near]
