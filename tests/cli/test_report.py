"""Reports of runs over many inputs: table, JSON, messages, summary and exit code."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.cells import cell_len

from tiepoint.batch import ImageRecord, PairRecord
from tiepoint.cli import exit_codes
from tiepoint.cli.report import Report, complain, image_report, pair_report, stop
from tiepoint.errors import FormatError, how_to_install

DONE = ImageRecord("a.png", "done", Path("out/a.npz"), None, 12, (480, 640), 3.456)
SKIPPED = ImageRecord("b.png", "skipped", Path("out/b.npz"), None, 7, (48, 64))
FAILED = ImageRecord("c.png", "failed", error="c.png: no such file")
UNWRITTEN = ImageRecord(
    "d.png", "failed", None, None, 5, (48, 64), 1.0, error="d.npz: not writable"
)
REFUSED = ImageRecord("e.png", "refused", Path("out/e.npz"), error="e.npz: other settings")


def no_count() -> int:
    raise AssertionError("nothing is counted without a progress bar")


def follow(report: Report[Any], records: Iterable[Any]) -> int:
    with report:
        report.follow(iter(records))
    return report.exit_code


def images(*records: ImageRecord, as_json: bool = False) -> int:
    return follow(image_report(as_json=as_json, count=no_count), records)


def pairs(*records: PairRecord, as_json: bool = False) -> int:
    return follow(pair_report(as_json=as_json, count=no_count), records)


def test_a_table_has_a_header_and_a_line_per_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert images(DONE, SKIPPED) == exit_codes.DONE
    header, done, skipped = capsys.readouterr().out.splitlines()
    assert header.split() == ["image", "size", "keypoints", "ms", "output"]
    assert done.split() == ["a.png", "640x480", "12", "3", str(Path("out/a.npz"))]
    assert skipped.split() == ["b.png", "64x48", "7", "skipped", str(Path("out/b.npz"))]


def test_columns_are_aligned_for_names_of_any_script(capsys: pytest.CaptureFixture[str]) -> None:
    korean = ImageRecord("벌 한 마리.png", "done", Path("x.npz"), None, 12, (480, 640), 3.0)
    images(DONE, korean)
    lines = capsys.readouterr().out.splitlines()
    ends = [cell_len(line[: re.search(r"size|640x480", line).end()]) for line in lines]  # type: ignore[union-attr]
    assert len(set(ends)) == 1


def test_a_long_name_keeps_its_length(capsys: pytest.CaptureFixture[str]) -> None:
    name = "folder/" * 10 + "a.png"
    images(ImageRecord(name, "done", Path("x.npz"), None, 1, (8, 8), 1.0))
    assert capsys.readouterr().out.splitlines()[1].startswith(f"{name} ")


def test_json_is_an_object_per_record_with_the_fields_of_the_record(
    capsys: pytest.CaptureFixture[str],
) -> None:
    images(DONE, FAILED, as_json=True)
    done, failed = map(json.loads, capsys.readouterr().out.splitlines())
    assert done == {
        "source": "a.png", "status": "done", "output": str(Path("out/a.npz")), "overlay": None,
        "keypoints": 12, "size_hw": [480, 640], "milliseconds": 3.5, "error": None,
        "reason": None, "redone": None,
    }  # fmt: skip
    assert failed["error"] == "c.png: no such file"
    assert failed["milliseconds"] is None and list(failed) == list(done)


def test_errors_and_the_summary_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    images(DONE, SKIPPED, FAILED, REFUSED)
    out, err = capsys.readouterr()
    assert "c.png" not in out and "e.png" not in out
    failed, refused, summary = err.splitlines()
    assert failed == "tiepoint: failed: c.png: no such file"
    assert refused == "tiepoint: refused: e.npz: other settings"
    assert re.fullmatch(r"tiepoint: 1 done, 1 skipped, 1 failed, 1 refused in \d+\.\d s", summary)


@pytest.mark.parametrize(
    ("records", "code"),
    [
        ([], exit_codes.NOTHING_READABLE),
        ([DONE], exit_codes.DONE),
        ([SKIPPED], exit_codes.DONE),
        ([FAILED], exit_codes.NOTHING_READABLE),
        ([FAILED, FAILED, DONE], exit_codes.FAILED),
        ([UNWRITTEN], exit_codes.FAILED),
        ([REFUSED], exit_codes.FAILED),
        ([DONE, REFUSED], exit_codes.FAILED),
    ],
)
def test_the_exit_code_of_images(records: list[ImageRecord], code: int) -> None:
    assert images(*records) == code


def refused(number: int, reason: str) -> ImageRecord:
    output = Path(f"out/{number}.npz")
    return ImageRecord("x", "refused", output, error=f"{output}: {reason}", reason=reason)


def test_outputs_refused_for_one_reason_share_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    records = [refused(n, "other settings" if n % 100 else "other mask") for n in range(200)]
    assert images(*records, DONE) == exit_codes.FAILED
    lines = capsys.readouterr().err.splitlines()
    assert lines[:-1] == [
        f"tiepoint: 2 refused alike, the first: {Path('out/0.npz')}: other mask",
        f"tiepoint: 198 refused alike, the first: {Path('out/1.npz')}: other settings",
    ]
    assert lines[-1].startswith("tiepoint: 1 done, 200 refused in ")
    images(refused(7, "other settings"))
    first = capsys.readouterr().err.splitlines()[0]
    assert first == f"tiepoint: refused: {Path('out/7.npz')}: other settings"


def test_json_names_every_refused_output(capsys: pytest.CaptureFixture[str]) -> None:
    images(*(refused(n, "other settings") for n in range(3)), as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["output"] for line in lines] == [str(Path(f"out/{n}.npz")) for n in range(3)]


def test_the_summary_counts_what_was_done_again(capsys: pytest.CaptureFixture[str]) -> None:
    again = replace(DONE, redone="the image changed")
    images(DONE, again, again, replace(DONE, redone="the output was damaged"), SKIPPED)
    assert capsys.readouterr().err.startswith(
        "tiepoint: 4 done (2 again because the image changed, "
        "1 again because the output was damaged), 1 skipped in "
    )


def test_the_report_ends_with_what_was_not_taken(capsys: pytest.CaptureFixture[str]) -> None:
    ignored: Counter[str] = Counter()
    report = image_report(as_json=False, count=no_count, ignored=ignored)
    with report:
        report.follow(iter([DONE]))
        ignored[".heic"] += 2
    note, summary = capsys.readouterr().err.splitlines()
    assert note == f"tiepoint: 2 ignored: .heic 2; .heic: {how_to_install('heif')}"
    assert summary.startswith("tiepoint: 1 done in ")


PAIR_DONE = PairRecord("a.png", "b.png", "done", 31, 2.0)
PAIR_FAILED = PairRecord("a.png", "c.png", "failed", error="no descriptors")


@pytest.mark.parametrize(
    ("records", "code"),
    [
        ([], exit_codes.NOTHING_READABLE),
        ([PAIR_DONE], exit_codes.DONE),
        ([PairRecord("a", "b", "skipped", 3)], exit_codes.DONE),
        ([PAIR_FAILED], exit_codes.NOTHING_READABLE),
        ([PAIR_DONE, PAIR_FAILED], exit_codes.FAILED),
        ([PairRecord("a", "b", "refused", error="other settings")], exit_codes.FAILED),
    ],
)
def test_the_exit_code_of_pairs(records: list[PairRecord], code: int) -> None:
    assert pairs(*records) == code


def test_pairs_have_two_names_and_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    pairs(PAIR_DONE, PAIR_FAILED, PairRecord("a", "b", "skipped", 3))
    out, err = capsys.readouterr()
    header, done, skipped = out.splitlines()
    assert re.split(r"\s{2,}", header) == ["image a", "image b", "matches", "ms"]
    assert done.split() == ["a.png", "b.png", "31", "2"]
    assert skipped.split() == ["a", "b", "3", "skipped"]
    assert "tiepoint: failed: no descriptors" in err
    pairs(PAIR_DONE, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "image_a": "a.png", "image_b": "b.png", "status": "done", "matches": 31,
        "milliseconds": 2.0, "error": None, "reason": None, "redone": None,
    }  # fmt: skip


def test_nothing_to_do_prints_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    images()
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("tiepoint: nothing done in ")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (FormatError("x.npz: disk full"), exit_codes.FAILED, "stopped: x.npz: disk full"),
        (KeyboardInterrupt(), exit_codes.INTERRUPTED, "interrupted; repeat the same command"),
    ],
)
def test_a_run_that_ends_early_keeps_its_summary(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def records() -> Iterator[ImageRecord]:
        yield DONE
        raise error

    assert follow(image_report(as_json=False, count=no_count), records()) == code
    first, summary = capsys.readouterr().err.splitlines()
    assert first.startswith(f"tiepoint: {message}")
    assert summary.startswith("tiepoint: 1 done in ")


def test_an_unexpected_error_passes_without_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    def records() -> Iterator[ImageRecord]:
        yield DONE
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        follow(image_report(as_json=False, count=no_count), records())
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("count", [2, None])
def test_a_terminal_shows_a_bar_with_the_count(
    count: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    counted: list[None] = []

    def count_records() -> int | None:
        counted.append(None)
        return count

    assert follow(image_report(as_json=True, count=count_records), [DONE, SKIPPED]) == 0
    assert len(counted) == 1
    assert "detecting" in terminal.getvalue()
    assert ("2/2" if count else "2/?") in terminal.getvalue()


def test_messages_go_to_stderr_and_a_stop_exits(capsys: pytest.CaptureFixture[str]) -> None:
    complain("left out: a.png")
    with pytest.raises(typer.Exit) as stopped:
        stop("not registered", exit_codes.NOT_REGISTERED)
    assert stopped.value.exit_code == exit_codes.NOT_REGISTERED
    assert capsys.readouterr() == ("", "tiepoint: left out: a.png\ntiepoint: not registered\n")
