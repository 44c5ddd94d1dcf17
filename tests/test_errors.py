"""Optional libraries are found without importing them."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tiepoint.errors import is_installed


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
