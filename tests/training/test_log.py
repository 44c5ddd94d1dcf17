from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from tiepoint.training.log import Log, curves, flat, read_log, terminal_line
from tiepoint.training.trainer import Record


def record(step: int, **figures: float) -> Record:
    return Record(step, "joint", 0.25, figures, 41.2, 0.1, 1e-3, 2, 75.0)


FIGURES = {"loss": 3.0, "detector": 0.5, "descriptor": 2.5, "accuracy": 0.4, "repeat": -0.01}


def test_records_are_lines_of_json(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.add(flat(record(20, **FIGURES)))
    log.add(flat(record(40, **FIGURES)))
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [20, 40]
    assert json.loads(lines[0])["accuracy"] == 0.4
    assert json.loads(lines[0])["waiting_percent"] == 10


def test_a_resumed_run_drops_what_it_will_tell_again(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for step in (20, 40, 60):
        log.add(flat(record(step)))
    Log(tmp_path, from_step=45)
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [20, 40]
    Log(tmp_path)
    assert read_log(tmp_path / "log.jsonl") == []


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 20}\n{"step": 40, "det')
    Log(tmp_path, from_step=100)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 20}\n'


def test_the_terminal_line_says_what_matters_and_fits() -> None:
    line = terminal_line(record(123456, **FIGURES))
    for part in ("25%", "joint", "123456", "0.500", "40%", "41 images/s", "10% waiting",
                 "2 skipped", "1:15 left"):  # fmt: skip
        assert part in line
    assert len(line) < 150


def test_curves_are_drawn_where_the_values_are(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for step in range(20, 200, 20):
        log.add(flat(record(step, detector=1.0 - step / 300, accuracy=step / 300)))
    log.draw()
    drawn = cv2.imread(str(tmp_path / "curves.png"))
    assert drawn.shape[0] == 3 * 220  # detector, accuracy, images per second
    blue = (np.abs(drawn[:220].astype(int) - [180, 90, 20]).sum(axis=2) < 60)[36:]
    rows = [np.nonzero(blue[:, columns])[0].mean() for columns in (slice(50, 150), slice(400, 500))]
    assert rows[0] < rows[1]  # the loss falls: the line goes down the picture


def test_nothing_recorded_gives_an_empty_panel() -> None:
    assert curves([]).shape == (220, 560, 3)
    assert curves([{"step": 1, "detector": float("nan")}]).shape == (220, 560, 3)
