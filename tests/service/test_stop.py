"""The service stops by a signal: running requests end, new ones get 503, in a limited time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.service import Client, gated, picture, png, until
from tiepoint.service.security import KEY_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
GATED = """
import sys
from support.service import Gate, SMALL
from dataclasses import replace
from tiepoint.cli.serve import _end
from tiepoint.service.app import make_app
from tiepoint.service.server import StoppableServer, listen
from tiepoint.service.settings import LimitConfig

gate = Gate()
settings = replace(SMALL, limits=LimitConfig(stop_seconds=int(sys.argv[1])))
server = StoppableServer(make_app(settings, [gate.router]))
with listen("127.0.0.1", 0) as listener:
    print(f"serving on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    server.run(sockets=[listener])
_end(is_clean=server.is_clean)
"""


@contextmanager
def process(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """A service in a process of its own."""
    paths = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    started = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )  # fmt: skip
    try:
        assert started.stdout is not None
        line = started.stdout.readline()
        match = re.search(r":(\d+)", line.removeprefix("serving on http:"))
        assert match, (line, started.communicate(timeout=30)[1])
        client = Client(int(match[1]))
        assert until(lambda: answers(client))
        yield started, client
    finally:
        started.kill()
        started.communicate()


def answers(client: Client) -> bool:
    try:
        return client.get("/health").status == 200
    except OSError:
        return False


COMMAND = ("-m", "tiepoint", "serve", "--port", "0", "--checkpoint", "small")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_command_answers_until_a_signal_and_ends_with_status_0(number: int) -> None:
    with process(*COMMAND) as (started, client):
        assert client.post("/detect", image=png(picture())).status == 200
        started.send_signal(number)
        assert started.wait(30) == 0
        assert started.stderr is not None and started.stderr.read() == "stopped\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_key_of_the_environment_is_asked_for_and_is_in_no_argument() -> None:
    key = "a-key-of-the-environment"
    with process(*COMMAND, **{KEY_VARIABLE: key}) as (_, client):
        assert client.post("/detect", image=png(picture())).status == 401
        headers = {"Authorization": f"Bearer {key}"}
        assert client.post("/detect", image=png(picture()), headers=headers).status == 200


def test_running_requests_end_and_new_ones_get_503() -> None:
    with gated(workers=1, queue=2) as (served, gate), ThreadPoolExecutor(2) as threads:
        running = [threads.submit(served.client.post, "/wait") for _ in range(2)]
        assert until(lambda: served.app.state.service.work.taken == 2)
        served.server.handle_exit(signal.SIGTERM, None)
        refused = served.client.post("/detect", image=png(picture()))
        assert (refused.status, refused.error["code"]) == (503, "stopping")
        assert served.client.get("/health/ready").status == 503
        assert served.client.get("/health").json()["ready"] is False
        assert not any(one.done() for one in running)
        gate.opened.set()
        assert [one.result().status for one in running] == [200, 200]
        assert until(lambda: served.server.should_exit)
    assert served.server.is_clean


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("signals", [1, 2])
def test_a_request_that_does_not_end_is_left_after_the_time_or_a_second_signal(
    signals: int,
) -> None:
    seconds = "1" if signals == 1 else "300"
    with process("-c", GATED, seconds) as (started, client), ThreadPoolExecutor(1) as threads:
        lost = threads.submit(client.post, "/wait")
        assert until(lambda: "running 1.0" in client.get("/metrics").body.decode())
        start = time.monotonic()
        for _ in range(signals):
            started.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        assert started.wait(60) == 1
        assert time.monotonic() - start < 50
        assert (lost.result().status, lost.result().error["code"]) == (503, "stopping")
