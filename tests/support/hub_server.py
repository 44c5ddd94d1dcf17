"""A small Hugging Face Hub on 127.0.0.1: repositories, commits, LFS, uploads, and faults."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LFS = (".safetensors", ".bin", ".pth")


@dataclass
class Repo:
    """Commits oldest first, each all of its files; a branch or tag is a name for a commit."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        now = {**self.commits.get(self.refs.get(branch, ""), {}), **files}
        sha = hashlib.sha1(repr((len(self.commits), sorted(now))).encode()).hexdigest()
        self.commits[sha] = now
        self.refs[branch] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        sha = self.refs.get(revision, revision)
        return sha if sha in self.commits else None


class FakeHub(ThreadingHTTPServer):
    """The server, and what a test sets or looks at.

    Attributes:
        repos: By id.
        log: "METHOD path" of every request.
        cut: File name -> bytes after which its download breaks off, each time.
        ranges: Whether a download can be resumed.
        status: Answer everything with this status.
        write_token: What may create repositories and commit.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.log: list[str] = []
        self.cut: dict[str, int] = {}
        self.ranges = True
        self.status: int | None = None
        self.write_token: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, repo_id: str, folder: Path, leave_out: tuple[str, ...] = ()) -> str:
        """Commit a folder's files, also of folders in it, to a repository; the commit's hash."""
        names = {p: p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        files = {n: p.read_bytes() for p, n in names.items() if not n.startswith(leave_out)}
        return self.repos.setdefault(repo_id, Repo()).commit(files)

    def downloads(self) -> list[str]:
        """Files that were sent, in order."""
        return [
            line.split()[1] for line in self.log if re.match(r"GET /(cdn|[^/]+/.+/resolve)/", line)
        ]


@contextmanager
def running() -> Iterator[FakeHub]:
    server = FakeHub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.begin()
        if self.server.status:
            return self.error(self.server.status, "")
        if self.bearer() != self.server.write_token or self.bearer() is None:
            return self.error(403 if self.bearer() else 401, "")
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo_id = f"{asked['organization']}/{asked['name']}"
            if repo_id in self.server.repos:
                return self.send(409, json.dumps({"error": "exists", "url": repo_id}).encode())
            self.server.repos[repo_id] = Repo()
            self.server.repos[repo_id].commit({".gitattributes": b""})
            if asked.get("visibility") == "private" or asked.get("private"):
                self.server.repos[repo_id].token = self.server.write_token
            return self.send_json({"url": f"{self.server.url}/{repo_id}"})
        if path == "/api/validate-yaml":
            return self.send_json({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/(.+)", path):
            files = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
            ]
            return self.send_json({"files": modes})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            lines = [json.loads(line) for line in body.splitlines()]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            sha = self.server.repos[found[1]].commit(files, found[2])
            commit_url = f"{self.server.url}/{found[1]}/commit/{sha}"
            return self.send_json({"commitUrl": commit_url, "commitOid": sha, "success": True})
        return self.error(404, "")

    def answer(self) -> None:
        path = self.begin()
        if self.server.status:
            return self.error(self.server.status, "")
        if found := re.fullmatch(r"/cdn/([0-9a-f]{64})/(.+)", path):
            for repo in self.server.repos.values():
                for files in repo.commits.values():
                    for data in files.values():
                        if hashlib.sha256(data).hexdigest() == found[1]:
                            return self.send_file(found[2], data)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            if (repo := self.repo(found[1])) and (sha := self.commit(repo, found[2] or "main")):
                names = [{"rfilename": name} for name in sorted(repo.commits[sha])]
                self.send_json({"id": found[1], "sha": sha, "siblings": names})
            return None
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if (repo := self.repo(found[1])) and (sha := self.commit(repo, found[2])):
                self.resolve(repo, sha, found[3])
            return None
        return self.error(404, "")

    def begin(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.server.log.append(f"{self.command} {path}")
        return path

    def bearer(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def repo(self, repo_id: str) -> Repo | None:
        repo = self.server.repos.get(repo_id)
        if repo and (repo.token is None or repo.token == self.bearer()):
            return repo
        if repo and repo.gated and "/resolve/" in self.path:
            self.error(403 if self.bearer() else 401, "GatedRepo")
        elif repo and repo.gated:
            return repo
        else:  # a private repository looks like none
            self.error(404 if self.bearer() else 401, "RepoNotFound")
        return None

    def commit(self, repo: Repo, revision: str) -> str | None:
        sha = repo.resolve(revision)
        if sha is None:
            self.error(404, "RevisionNotFound")
        return sha

    def resolve(self, repo: Repo, sha: str, name: str) -> None:
        data = repo.commits[sha].get(name)
        if data is None:
            return self.error(404, "EntryNotFound", {"X-Repo-Commit": sha})
        headers = {"X-Repo-Commit": sha}
        if name.endswith(LFS):
            digest = hashlib.sha256(data).hexdigest()
            cdn = self.server.url.replace("127.0.0.1", "localhost")  # another host, as in life
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            return self.send(302, b"", {**headers, "Location": f"{cdn}/cdn/{digest}/{name}"})
        headers["ETag"] = f'"{hashlib.sha1(data).hexdigest()}"'
        return self.send_file(name, data, headers)

    def send_file(self, name: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        start = 0
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and self.server.ranges:
            start = int(asked[1])
        cut = self.server.cut.get(name)
        status = 206 if start else 200
        more = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        self.send(
            status, data[start:], {**(headers or {}), **more}, None if cut is None else cut - start
        )

    def send_json(self, value: object) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self.send(status, b"{}", {**(headers or {}), **({"X-Error-Code": code} if code else {})})

    def send(
        self,
        status: int,
        data: bytes,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")  # else a thread of ours waits for each of theirs
        self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut is not None and cut < len(data):
            self.wfile.write(data[: max(cut, 0)])
        else:
            self.wfile.write(data)
