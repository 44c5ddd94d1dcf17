"""The file of pairs that are done: written line by line, read whatever a crash has left."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tiepoint.errors import OutputError
from tiepoint.evaluation.resume import ResumeFile, fingerprint, from_json


@dataclass(frozen=True)
class Figures:
    matches: int
    errors: tuple[float, ...]


FIGURES = [Figures(3, (0.1, math.inf)), Figures(0, ())]


def test_a_new_file_holds_only_what_decides_the_figures(tmp_path: Path) -> None:
    resume = ResumeFile(tmp_path / "new" / "run.partial", {"k": 5, "photo": Path("x.png")})
    assert resume.done == {}
    assert resume.moved_to is None
    assert json.loads(resume.path.read_text()) == {"k": 5, "photo": "x.png"}


def test_pairs_come_back_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "run.partial"
    ResumeFile(path, {"k": 5}).add("wall", "1 2", FIGURES)
    done = ResumeFile(path, {"k": 5}).done
    assert list(done) == [("wall", "1 2")]
    assert [from_json(Figures, values) for values in done["wall", "1 2"]] == FIGURES


def test_floats_survive_the_file_exactly() -> None:
    rng = np.random.default_rng(0)
    for value in [*rng.standard_normal(50), *10.0 ** rng.uniform(-300, 300, 50), math.nan]:
        through = from_json(Figures, json.loads(json.dumps({"matches": 1, "errors": [value]})))
        np.testing.assert_array_equal(through.errors, (value,))


def test_many_pairs_and_names_of_any_script_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.partial"
    keys = [("벽", f'{number} "a" \\ {chr(200 + number)}') for number in range(40)]
    resume = ResumeFile(path, {})
    for group, name in keys:
        resume.add(group, name, FIGURES)
    assert list(ResumeFile(path, {}).done) == keys


@pytest.mark.parametrize("cut", [1, 10, 25])
def test_a_line_that_a_crash_cut_off_is_dropped_and_the_file_mended(
    tmp_path: Path, cut: int
) -> None:
    path = tmp_path / "run.partial"
    resume = ResumeFile(path, {"k": 5})
    resume.add("wall", "1", FIGURES)
    resume.add("wall", "2", FIGURES)
    path.write_bytes(path.read_bytes()[:-cut])
    mended = ResumeFile(path, {"k": 5})
    kept = 2 if cut == 1 else 1  # without its line's end a pair is whole
    assert len(mended.done) == kept
    mended.add("wall", "3", FIGURES)
    assert len(ResumeFile(path, {"k": 5}).done) == kept + 1


def test_pairs_of_other_settings_are_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "run.partial"
    ResumeFile(path, {"k": 5}).add("wall", "1", FIGURES)
    other = ResumeFile(path, {"k": 6})
    assert other.done == {}
    assert other.moved_to == tmp_path / "run.partial.old"
    assert '"wall"' in other.moved_to.read_text()
    assert len(ResumeFile(other.moved_to, {"k": 5}).done) == 1


def test_a_file_without_pairs_is_replaced_without_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "run.partial"
    ResumeFile(path, {"k": 5})
    assert ResumeFile(path, {"k": 6}).moved_to is None
    assert [one.name for one in tmp_path.iterdir()] == ["run.partial"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"not json\n[1]\n"])
def test_a_file_that_is_something_else_is_no_resume(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.partial"
    path.write_bytes(content)
    assert ResumeFile(path, {"k": 5}).done == {}
    assert json.loads(path.read_text()) == {"k": 5}


def test_finishing_removes_the_file_and_may_be_repeated(tmp_path: Path) -> None:
    resume = ResumeFile(tmp_path / "run.partial", {})
    resume.finish()
    resume.finish()
    assert not resume.path.exists()


def test_a_pair_that_cannot_be_written_is_an_error_with_the_path(tmp_path: Path) -> None:
    resume = ResumeFile(tmp_path / "run.partial", {})
    resume.path.unlink()
    resume.path.mkdir()
    with pytest.raises(OutputError, match="run.partial: cannot be written"):
        resume.add("wall", "1", FIGURES)


def test_a_folder_that_cannot_be_made_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        ResumeFile(tmp_path / "file" / "run.partial", {})


@dataclass(frozen=True, eq=False)
class Pair:
    name: str
    truth: np.ndarray


def test_the_fingerprint_follows_names_truth_and_order() -> None:
    pairs = [Pair("1", np.eye(3)), Pair("2", np.eye(3))]
    same = [Pair("1", np.eye(3)), Pair("2", np.eye(3))]
    assert fingerprint(pairs) == fingerprint(same)
    assert len(fingerprint(pairs)) == 16
    others = [
        pairs[:1],
        pairs[::-1],
        [Pair("1", np.eye(3)), Pair("3", np.eye(3))],
        [Pair("1", np.eye(3)), Pair("2", 2 * np.eye(3))],
        [],
    ]
    assert len({fingerprint(pairs), *map(fingerprint, others)}) == 6
