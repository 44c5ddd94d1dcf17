"""Trials of readers on hostile files, each in a forked process with its time and memory.

Run as a script: `python hostile_trials.py [PART]` prints one JSON line a trial.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from support import hostile_files as files
from support import hostile_weights as weights
from tiepoint.errors import TiepointError
from tiepoint.formats import load, load_matches, read_h5, read_matches_h5, summarise

HANG_S = 10


def each(read: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Read every entry of a mapping."""

    def call(path: Path) -> None:
        for value in read(path).values():
            del value

    return call


def whole_summary(path: Path) -> None:
    """The summary, and then the features, whose arrays the summary has not read."""
    summarise(path)
    load(path)


def from_checkpoint(path: Path) -> None:
    from tiepoint.detector import Detector

    Detector(path)


def from_guides_processor(path: Path) -> None:
    from tiepoint.hf.processor import SuperPointImageProcessor

    SuperPointImageProcessor.from_pretrained(path)


def from_guides_config(path: Path) -> None:
    from tiepoint.hf.config import SuperPointConfig

    SuperPointConfig.from_pretrained(path)


def convert(path: Path) -> None:
    from tiepoint.weights.convert import convert as run

    run(path, path.parent / "out")


def rotation(path: Path) -> None:
    from tiepoint.weights.checkpoint import load_checkpoint
    from tiepoint.weights.rotation import load_rotation

    checkpoint = load_checkpoint(path)
    load_rotation(str(path), checkpoint.sha256, checkpoint.network.descriptor_decoder_dim)


class Trial(NamedTuple):
    """A reader on a file."""

    name: str
    write: files.Write
    ending: str
    read: Callable[[Path], Any]


def trials() -> Iterator[Trial]:
    """The trials; those of one file follow each other, so that it is written once."""
    features = (
        (files.HDF5, ".h5"),
        (files.NPZ, ".npz"),
        (files.FEATURES_JSON, ".json"),
        (files.CSV, ".csv"),
        (files.PARQUET, ".parquet"),
        (files.GEOJSON, ".geojson"),
    )
    for kinds, ending in features:
        for name, write in kinds.items():
            yield Trial(f"load: {name}", write, ending, load)
            yield Trial(f"summarise: {name}", write, ending, whole_summary)
            if ending == ".h5":
                yield Trial(f"read_h5: {name}", write, ending, each(read_h5))
    others: list[tuple[str, dict[str, files.Write], str, Callable[[Path], Any]]] = [
        ("load_matches", files.MATCHES_NPZ, ".npz", load_matches),
        ("read_matches_h5", files.MATCHES_H5, ".h5", each(read_matches_h5)),
        ("Detector", weights.CHECKPOINTS, "", from_checkpoint),
        ("load_rotation", weights.ROTATIONS, "", rotation),
        ("processor", weights.PROCESSORS, "", from_guides_processor),
        ("guide's config", weights.GUIDE_CONFIGS, "", from_guides_config),
        ("convert", weights.TORCH, ".pth", convert),
    ]
    for reader, kinds, ending, read in others:
        for name, write in kinds.items():
            yield Trial(f"{reader}: {name}", write, ending, read)


def environment() -> dict[str, str]:
    """The variables for a process that runs this script."""
    paths = [*sys.path, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def outcome_of(call: Callable[[Path], Any], path: Path) -> dict[str, Any]:
    """What a call raises, and its seconds of this process and of the clock."""
    started, clock = time.process_time(), time.monotonic()
    raised, words = "nothing", ""
    try:
        call(path)
    except TiepointError as error:
        raised, words = "ours", str(error)
    except BaseException as error:  # noqa: BLE001 - what is not ours is the result
        raised, words = type(error).__name__, str(error)[:200]
    return {
        "raised": raised, "words": words[:300], "letters": len(words),
        "seconds": time.process_time() - started, "clock": time.monotonic() - clock,
    }  # fmt: skip


def in_child(work: Callable[[], Any], hang_s: int = HANG_S) -> dict[str, Any]:
    """Run in a forked process: its JSON, and its peak memory in MB, which begins with ours."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(hang_s)  # whose default ends the process
        try:
            os.write(send, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        told = pipe.read()
    usage = os.wait4(child, 0)[2]
    outcome: dict[str, Any] = (json.loads(told) or {}) if told else {"raised": "a hang or a crash"}
    return {**outcome, "megabytes": usage.ru_maxrss / 1024}


def main(part: str = "") -> None:
    """Run the trials whose name holds `part`."""
    import h5py  # noqa: F401
    import safetensors  # noqa: F401
    import torch  # noqa: F401

    import tiepoint.hf.config
    import tiepoint.hf.processor
    import tiepoint.weights.convert  # noqa: F401

    warnings.simplefilter("ignore")
    base = in_child(lambda: None)["megabytes"]
    chosen = (trial for trial in trials() if part in trial.name)
    for (write, ending), group in groupby(chosen, lambda trial: (trial.write, trial.ending)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"hostile{ending}"
            wrote = in_child(lambda: write(path), 120)  # noqa: B023
            for name, _, _, read in group:
                assert "raised" not in wrote, name
                outcome = in_child(lambda: outcome_of(read, path))  # noqa: B023
                growth = outcome["megabytes"] - base
                print(json.dumps({"trial": name, **outcome, "growth": growth}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
