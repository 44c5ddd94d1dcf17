"""Keys, hosts, origins, and files below a root."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.service import SMALL, Client, picture, png, serving
from tiepoint.errors import ConfigError
from tiepoint.service.security import KEY_VARIABLE, read_keys
from tiepoint.service.settings import ServiceSettings, accepted_hosts, is_loopback

KEY, OTHER = "0123456789abcdef0123", "another-key-of-20-chars"
IMAGE = png(picture())


@pytest.fixture(scope="module")
def locked() -> Iterator[Client]:
    """A service with two keys, as if others reached it."""
    with serving(replace(SMALL, keys=(KEY, OTHER), hosts=None)) as served:
        yield served.client


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {OTHER} "},
        {"X-API-Key": KEY},
        {"Authorization": basic("", KEY)},
        {"Authorization": basic("anybody", OTHER)},
    ],
)
def test_a_key_opens_every_route(locked: Client, headers: dict[str, str]) -> None:
    assert locked.post("/detect", image=IMAGE, headers=headers).status == 200
    for path in ("/metrics", "/docs", "/openapi.json"):
        assert locked.get(path, headers).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": KEY},
        {"Authorization": f"Digest {KEY}"},
        {"Authorization": "Basic ####"},
        {"Authorization": "Basic \xe9\xe9"},
        {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode()},
        {"Authorization": basic(KEY, "")},
        {"X-API-Key": ""},
        {"X-API-Key": "\xe9" * 20},
        {"Cookie": f"key={KEY}"},
    ],
)
def test_without_a_valid_key_only_the_state_is_shown(
    locked: Client, headers: dict[str, str]
) -> None:
    for path in ("/detect", "/match", "/register", "/compare", "/nothing"):
        answer = locked.post(f"{path}?key={KEY}", image=IMAGE, headers=headers)
        assert (answer.status, answer.error["code"]) == (401, "no_key")
        assert "Bearer" in answer.headers["WWW-Authenticate"]
        assert KEY.encode() not in answer.body
    for path in ("/metrics", "/docs", "/openapi.json"):
        assert locked.get(path, headers).status == 401
    for path in ("/health", "/health/live", "/health/ready"):
        assert locked.get(path, headers).status == 200


def test_a_body_without_a_key_is_not_read(locked: Client) -> None:
    with locked.socket() as connection:
        connection.sendall(
            b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n"
        )
        assert b" 401 " in connection.recv(4000)


@pytest.mark.parametrize(
    ("host", "accepted"),
    [
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("127.0.0.1:80", True),
        ("[::1]:8000", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("localhost@evil.example", False),
        ("[::1", False),
        ("localhost:port", False),
        ("", False),
    ],
)
def test_on_loopback_only_its_names_are_hosts(client: Client, host: str, accepted: bool) -> None:
    for path in ("/health", "/docs"):
        answer = client.get(path, {"Host": host})
        assert answer.status == (200 if accepted else 421)
    if not accepted:
        assert answer.error["code"] == "unknown_host"


@pytest.mark.parametrize(
    ("origin", "accepted"),
    [
        ("http://localhost:8000", True),
        ("https://LOCALHOST:8000", True),
        ("http://localhost:8001", False),
        ("http://localhost", False),
        ("http://evil.example:8000", False),
        ("null", False),
        ("", False),
        ("http://localhost:8000.evil.example", False),
    ],
)
def test_pages_of_other_sites_are_refused(client: Client, origin: str, accepted: bool) -> None:
    headers = {"Host": "localhost:8000", "Origin": origin}
    answer = client.post("/detect", image=IMAGE, headers=headers)
    assert answer.status == (200 if accepted else 403)


def test_no_answer_allows_other_sites_and_none_is_kept(client: Client) -> None:
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for answer in (
        client.get("/health"),
        client.get("/docs"),
        client.get("/nothing"),
        client.post("/detect", image=IMAGE),
        client.post("/detect", image=b""),
        client.request("OPTIONS", "/detect", headers=preflight),
    ):
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Server"] is None


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.4", False),
        ("localhost.evil.example", False),
        ("2130706433", False),
    ],
)
def test_only_addresses_of_this_machine_are_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) == local
    assert (accepted_hosts(host) is not None) == local


def test_a_name_of_a_proxy_is_accepted_where_it_is_given() -> None:
    assert accepted_hosts("127.0.0.1", ("Example.org",)) == {
        "localhost", "127.0.0.1", "::1", "example.org",
    }  # fmt: skip
    assert accepted_hosts("0.0.0.0", ("example.org",)) is None


@pytest.mark.parametrize("name", ["proxy.example:443", "https://proxy.example", "proxy/"])
def test_a_name_that_no_header_would_equal_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="the name alone"):
        accepted_hosts("127.0.0.1", (name,))


def test_settings_for_others_need_a_key_and_do_not_show_it() -> None:
    with pytest.raises(ConfigError, match="API key"):
        ServiceSettings(hosts=None)
    assert KEY not in repr(ServiceSettings(hosts=None, keys=(KEY,)))


def test_keys_come_from_a_file_and_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert read_keys(None) == ()
    path = tmp_path / "keys.txt"
    path.write_text(f"{KEY}\n\n {OTHER} \r\n")
    assert read_keys(path) == (KEY, OTHER)
    monkeypatch.setenv(KEY_VARIABLE, "from-the-environment\n")
    assert read_keys(path) == ("from-the-environment", KEY, OTHER)
    for wrong in ("", "short", "k" * 15, "키" * 20):
        monkeypatch.setenv(KEY_VARIABLE, wrong)
        with pytest.raises(ConfigError, match="openssl rand") as caught:
            read_keys(None)
        assert not wrong or wrong not in str(caught.value)
    monkeypatch.delenv(KEY_VARIABLE)
    path.write_text(f"# key of the drone team\n{KEY}\n")  # no comment becomes a key
    with pytest.raises(ConfigError, match="without spaces"):
        read_keys(path)
    for content in ("", "\n\n"):
        path.write_text(content)
        with pytest.raises(ConfigError, match="no key"):
            read_keys(path)
    for missing in (tmp_path / "nothing", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_keys(missing)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A root with images, and links out of it."""
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    for path in (root / "a.png", root / "inner" / "b.png", tmp_path / "secret.png"):
        path.write_bytes(IMAGE)
    (tmp_path / "root-of-others").mkdir()
    (tmp_path / "root-of-others" / "c.png").write_bytes(IMAGE)
    (root / "link.png").symlink_to(root / "inner" / "b.png")
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "outside").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "fifo")
    return root


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights there")
def test_files_below_the_root_are_read_and_no_others(folder: Path) -> None:
    with serving(replace(SMALL, root=folder), max_bytes=50_000) as served:
        client = served.client
        expected = client.post("/detect", image=IMAGE).json()
        for path in ("a.png", "inner/b.png", "./inner/../a.png", "link.png"):
            answer = client.post("/detect", image_path=path)
            assert answer.status == 200
            assert answer.json()["xy"] == expected["xy"]
        assert client.post("/detect", image_path="inner/b.png").json()["meta"]["source"] == "b.png"
        refused = [
            "", ".", "..", "/", "inner", "nothing.png", "../secret.png", "../root-of-others/c.png",
            "inner/../../secret.png", str(folder / "a.png"), str(folder.parent / "secret.png"),
            "out.png", "outside/secret.png", "outside/root/a.png/..", "loop", "fifo",
            "/etc/passwd", "a.png/", "a.png/x", "file:///etc/passwd", "http://127.0.0.1/", "~/x",
            "a.png\0", "..\\secret.png", "C:\\x", "\\\\host\\x", "a" * 4000, "%2e%2e/secret.png",
        ]  # fmt: skip
        bodies = set()
        for path in refused:
            answer = client.post("/detect", image_path=path)
            if path == "a.png/":  # the same file
                assert answer.status in (200, 404)
                continue
            assert (answer.status, answer.error["code"]) == (404, "no_such_file"), path
            bodies.add(answer.body)
        assert len(bodies) == 1  # whether a file exists elsewhere is not shown
        both = client.post("/match", a_path="a.png", b=IMAGE)
        assert both.status == 200 and both.json()["keypoints"][0] == both.json()["keypoints"][1]
        (folder / "large.png").write_bytes(bytes(60_000))
        assert client.post("/detect", image_path="large.png").status == 413


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights there")
def test_a_folder_that_becomes_a_link_after_the_check_is_not_followed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiepoint.service.problems import ProblemError
    from tiepoint.service.root import Root

    root, checked = Root(folder), Root._inside

    def then_replaced(self: Root, path: str) -> object:
        place = checked(self, path)
        (folder / "inner").rename(folder / "was")
        (folder / "inner").symlink_to(folder.parent / "root-of-others")
        return place

    (folder.parent / "root-of-others" / "b.png").write_bytes(IMAGE)
    monkeypatch.setattr(Root, "_inside", then_replaced)
    with pytest.raises(ProblemError):
        root.open("inner/b.png", "image_path")


def test_a_process_that_others_reach_refuses_to_start_without_a_key(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
    for options in (["--host", "0.0.0.0"], ["--host", "::"], ["--allow-host", "example.org"]):
        done = subprocess.run(
            [sys.executable, "-m", "tiepoint", "serve", "--port", "0", *options],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 2 and KEY_VARIABLE in done.stderr
