"""Worker processes: what the parent learns of one that has ended."""

from __future__ import annotations

import os
import pickle
from multiprocessing import Pipe

import pytest

from tiepoint.errors import TiepointError
from tiepoint.training.scenes.processes import received, send


def test_sending_to_a_worker_that_died_raises_an_error_of_ours() -> None:
    ours, theirs = Pipe()
    theirs.close()
    with pytest.raises(TiepointError, match="a worker that draws scenes died"):
        send(ours, "work")


@pytest.mark.parametrize("unread", [0, 1])
def test_sending_to_a_worker_that_ended_by_an_error_raises_that_error(unread: int) -> None:
    """Even after results that nobody has read, and with requests that it has not read."""
    ours, theirs = Pipe()
    for _ in range(unread):
        send(ours, "work")
    theirs.send((1, "result"))
    theirs.send(TiepointError("no such photograph"))
    theirs.close()
    with pytest.raises(TiepointError, match="no such photograph"):
        send(ours, "work")


@pytest.mark.skipif(os.name == "nt", reason="writes to the descriptor of a socket")
def test_a_worker_that_dies_within_a_message_is_reported() -> None:
    ours, theirs = Pipe()
    message = pickle.dumps(list(range(100)))
    os.write(theirs.fileno(), len(message).to_bytes(4, "big") + message[:50])
    theirs.close()
    with pytest.raises(TiepointError, match="a worker that draws scenes died"):
        received(ours)
