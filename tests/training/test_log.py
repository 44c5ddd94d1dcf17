"""The log of a run: a JSONL file that survives crashes, curves, and lines for a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from tiepoint.training.log import CURVES, Log, LogRecord, curves, read_log


def record(step: int, **figures: float) -> LogRecord:
    return LogRecord(step, "joint", 0.25, figures, 41.2, 0.1, 1e-3, 2, 75.0)


FIGURES = {"loss": 3.0, "detector": 0.5, "descriptor": 2.5, "accuracy": 0.4, "repeat": -0.01}


def test_records_are_lines_of_json(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.add(record(20, **FIGURES).to_json())
    log.add(record(40, **FIGURES).to_json())
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [20, 40]
    assert json.loads(lines[0])["accuracy"] == 0.4
    assert json.loads(lines[0])["waiting_percent"] == 10


def test_a_resumed_run_drops_the_records_that_it_will_log_again(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for step in (20, 40, 60):
        log.add(record(step).to_json())
    Log(tmp_path, from_step=45)
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [20, 40]
    Log(tmp_path)
    assert read_log(tmp_path / "log.jsonl") == []


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 20}\n{"step": 40, "det')
    Log(tmp_path, from_step=100)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 20}\n'


def test_the_terminal_line_has_what_matters_and_fits() -> None:
    line = record(123456, **FIGURES).terminal_line()
    for part in ("25%", "joint", "123456", "0.500", "40%", "41 images/s", "10% waiting",
                 "2 skipped", "1:15 left"):  # fmt: skip
        assert part in line
    assert len(line) < 150


def test_curves_are_drawn_where_the_values_are(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for step in range(20, 200, 20):
        log.add(record(step, detector=1.0 - step / 300, accuracy=step / 300).to_json())
    log.draw()
    drawn = cv2.imread(str(tmp_path / "curves.png"))
    assert drawn.shape[0] == 3 * 220  # detector, accuracy, images per second
    blue = (np.abs(drawn[:220].astype(int) - [180, 90, 20]).sum(axis=2) < 60)[36:]
    rows = [np.nonzero(blue[:, columns])[0].mean() for columns in (slice(50, 150), slice(400, 500))]
    assert rows[0] < rows[1]  # the loss falls: the line goes down the picture


def test_nothing_recorded_gives_an_empty_panel() -> None:
    assert curves([]).shape == (220, 560, 3)
    assert curves([{"step": 1, "detector": float("nan")}]).shape == (220, 560, 3)


def test_a_record_becomes_plain_rounded_values() -> None:
    values = LogRecord(7, "joint", 1 / 3, {"loss": 2 / 3}, 41.239, 0.1234, 1e-3, 2, 75.0).to_json()
    assert values == {
        "step": 7, "stage": "joint", "done": 0.33333, "rate": 1e-3, "images_per_s": 41.24,
        "waiting_percent": 12.3, "skipped": 2, "loss": 0.66667,
    }  # fmt: skip
    assert json.loads(json.dumps(values)) == values


def test_the_terminal_line_leaves_out_what_a_stage_has_not() -> None:
    line = LogRecord(
        20, "detector", 0.0, {"detector": 1.5}, 3.0, 0.0, 1e-3, 0, 3599.6
    ).terminal_line()
    assert "detector 1.500" in line and "60:00 left" in line
    for part in ("descriptor", "repeat", "skipped", "matched"):
        assert part not in line


def test_before_the_first_figure_the_line_has_nan() -> None:
    assert "detector nan" in record(1).terminal_line()


def test_a_missing_log_is_empty_and_lines_without_a_step_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert read_log(path) == []
    path.write_text('{"note": 1}\n[20]\n20\n\n{"step": 20}\n')
    assert read_log(path) == [{"step": 20}]


def test_a_record_at_the_resumed_step_is_kept(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for step in (20, 40):
        log.add(record(step).to_json())
    Log(tmp_path, from_step=40)
    assert [line["step"] for line in read_log(log.path)] == [20, 40]


def test_each_group_of_curves_with_values_has_a_panel() -> None:
    everything = {name: 0.5 for _, names in CURVES for name in names}
    records = [{"step": step, **everything} for step in (1, 2)]
    assert curves(records).shape == (220 * len(CURVES), 560, 3)
    assert curves([{"step": 1, "repeat": -0.1}, {"step": 2, "repeat": -0.2}]).shape[0] == 220


def test_values_that_are_not_finite_leave_a_gap() -> None:
    clean = [{"step": step, "repeat": -step / 10} for step in (1, 2, 4)]
    infinite = [*clean[:2], {"step": 3, "repeat": float("inf")}, clean[2]]
    np.testing.assert_array_equal(curves(clean), curves(infinite))
