"""Optional libraries are found without importing them; OpenCV's absence is explained."""

from __future__ import annotations

import importlib.machinery
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tiepoint.errors import OpenCvError, is_installed


def test_a_library_is_found_without_being_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "never_imported.py").write_text("raise AssertionError")
    assert not is_installed("never_imported")
    monkeypatch.syspath_prepend(tmp_path)
    assert is_installed("never_imported")
    assert "never_imported" not in sys.modules


def test_what_is_imported_counts_whether_it_has_a_spec_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = ModuleType("made_up")
    monkeypatch.setitem(sys.modules, "made_up", made)
    assert made.__spec__ is None and is_installed("made_up")
    made.__spec__ = importlib.machinery.ModuleSpec("made_up", None)
    assert is_installed("made_up")


def test_a_library_barred_from_import_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "json", None)
    assert not is_installed("json")


@pytest.mark.parametrize(
    "code",
    ["import tiepoint; tiepoint.Detector", "from tiepoint.cli import main; main()"],
    ids=["library", "command"],
)
def test_opencv_that_is_missing_is_named_with_what_to_install(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['cv2'] = None; {code}", "detect", "a.png"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode != 0
    message = done.stderr.splitlines()[-1]
    assert "OpenCV cannot be imported" in message and "opencv-python-headless" in message
    if "main" in code:
        assert message.startswith("tiepoint: ") and "Traceback" not in done.stderr


def test_the_error_of_opencv_travels_between_processes() -> None:
    error = OpenCvError("libGL.so.1 is missing")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
