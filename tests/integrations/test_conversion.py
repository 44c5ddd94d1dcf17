"""`tiepoint convert --to`: files of features and matches become those of another program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("h5py", reason="features of many images need the extra hdf5")

from support.features_files import write_h5
from tiepoint import Matches
from tiepoint.cli import app
from tiepoint.errors import ConfigError, FormatError
from tiepoint.formats import H5MatchesWriter


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """features.h5 of three images, and matches.h5 of one pair."""
    write_h5(tmp_path / "features.h5", "a.jpg", "b.jpg", "c.jpg")
    with H5MatchesWriter(tmp_path / "matches.h5") as writer:
        writer.add("b.jpg", "c.jpg", Matches(np.array([[1, 2]]), np.ones(1, np.float32)))
    return tmp_path / "features.h5", tmp_path / "matches.h5"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("opensfm", {f"features/{n}.jpg.features.npz" for n in "abc"}
         | {f"matches/{n}.jpg_matches.pkl.gz" for n in "bc"}),
        ("openmvg", {f"{n}.{end}" for n in "abc" for end in ("feat", "desc")} | {"matches.f.txt"}),
        ("micmac", {"Homol/Pastisb.jpg/c.jpg.txt", "Homol/Pastisc.jpg/b.jpg.txt"}),
    ],
)  # fmt: skip
def test_features_and_matches_are_written(
    program: str, expected: set[str], files: tuple[Path, Path], tmp_path: Path
) -> None:
    result = run(files[0], tmp_path / "out", "--to", program, "--matches", files[1])
    assert result.exit_code == 0, result.output
    assert files_below(tmp_path / "out") == expected
    assert f"{len(expected)} files for {program}" in result.output


@pytest.mark.parametrize("program", ["opensfm", "openmvg"])
def test_features_alone_are_enough(program: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    assert run(files[0], tmp_path / "out", "--to", program).exit_code == 0
    assert files_below(tmp_path / "out") and "matches.f.txt" not in files_below(tmp_path / "out")


def test_openmvg_takes_the_ids_of_its_own_list(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    views = [
        {"value": {"ptr_wrapper": {"data": {"filename": f"{n}.jpg", "id_view": 9 - i}}}}
        for i, n in enumerate("abc")
    ]
    (out / "sfm_data.json").write_text(json.dumps({"views": views}))
    assert run(files[0], out, "--to", "openmvg", "--matches", files[1]).exit_code == 0
    assert (out / "matches.f.txt").read_text() == "7 8\n1\n2 1\n"


@pytest.mark.parametrize(
    ("arguments", "error", "expected"),
    [
        (["--to", "micmac"], ConfigError, "give the matches"),
        (["--to", "bundler"], ConfigError, "bundler"),
        (["--matches", "features.h5"], ConfigError, "--to"),
        (["--to", "opensfm", "--matches", "nowhere.h5"], FormatError, "nowhere.h5"),
        (["--to", "opensfm", "--matches", "features.h5"], FormatError, "features.h5"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], error: type[Exception], expected: str, files: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    result = run(files[0], "out", *arguments)
    assert result.exit_code != 0 and isinstance(result.exception, (error, SystemExit))
    assert expected in f"{result.output}{result.exception}"
    assert not (tmp_path / "out").exists()
