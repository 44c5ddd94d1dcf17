"""Requests per second and latency of `tiepoint serve`, at several numbers of clients.

    python benchmarks/service.py --image photo.jpg --json service.json

Starts the service in a process of its own, on a free port, and stops it at the end. Each client is
a thread with one connection that sends its next request when it has the last answer. All send the
same image, 640x480 unless --image names a file. The first requests of each row warm the service
and are not counted. Run it on an idle machine: clients and service share its cores.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from stages import photograph

BOUNDARY = "tiepoint-benchmark"
ROUTES = ("detect", "detect?format=npz", "match", "register")
WARMING = 3
"""Requests of each client that are not counted."""


class Row(NamedTuple):
    """Figures of one route at one number of clients; latencies in ms."""

    route: str
    clients: int
    requests_per_second: float
    median_ms: float
    p95_ms: float


@contextmanager
def service(options: list[str]) -> Iterator[int]:
    """The port of a running service."""
    command = [sys.executable, "-m", "tiepoint", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
            if address is None:
                raise SystemExit("the service did not start")
            yield int(address[1])
        finally:
            process.terminate()


def body(image: bytes, route: str, keypoints: int) -> bytes:
    """A multipart form for a route."""
    names = ("image",) if route.startswith("detect") else ("a", "b")
    parts = [(f'name="{name}"; filename="{name}.jpg"', image) for name in names]
    parts.append(('name="max_keypoints"', str(keypoints).encode()))
    if route == "detect":
        parts.append(('name="descriptors"', b"false"))
    lines = [
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in parts
    ]
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()


def measure(port: int, route: str, form: bytes, clients: int, seconds: float) -> Row:
    """Requests of several clients for some seconds."""
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    warm = threading.Barrier(clients + 1)
    ends: list[float] = []
    latencies: list[float] = []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

        def ask() -> float:
            start = time.perf_counter()
            connection.request("POST", f"/{route}", form, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise SystemExit(f"{route}: status {answer.status}, {text[:300]!r}")
            return time.perf_counter() - start

        for _ in range(WARMING):
            ask()
        connection.close()  # the service would close it while others are still warming
        warm.wait()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            latencies.append(ask())  # appending is atomic
            ends.append(time.perf_counter())
        connection.close()

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    warm.wait(600)
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    median, p95 = np.percentile(latencies, [50, 95]) * 1000
    return Row(route, clients, len(ends) / (max(ends) - start), float(median), float(p95))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, help="JPEG file; else a photograph of 640x480 px")
    parser.add_argument("--clients", default="1,4,16", help="numbers of clients")
    parser.add_argument("--routes", default=",".join(ROUTES))
    parser.add_argument("--keypoints", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=15, help="time of each row")
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    if arguments.image is not None:
        image = arguments.image.read_bytes()
    else:
        pixels = photograph((640, 480))[..., ::-1]
        image = cv2.imencode(".jpg", np.ascontiguousarray(pixels))[1].tobytes()
    rows = []
    print(f"{'route':20}{'clients':>8}{'requests/s':>12}{'median ms':>11}{'95 % ms':>9}")
    with service(["--checkpoint", arguments.checkpoint]) as port:
        for route in arguments.routes.split(","):
            form = body(image, route, arguments.keypoints)
            for clients in map(int, arguments.clients.split(",")):
                row = measure(port, route, form, clients, arguments.seconds)
                rows.append(row._asdict())
                print(f"{row[0]:20}{row[1]:8}{row[2]:12.1f}{row[3]:11.1f}{row[4]:9.1f}", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
