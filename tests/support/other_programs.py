"""Substitutes for other programs, which repeat the checks of the real ones."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest


def install(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> ModuleType:
    """A module and its parents, as if the program were installed."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        path = ".".join(parts[:depth])
        if path not in sys.modules or depth == len(parts):
            module = ModuleType(path)
            module.__path__ = []
            monkeypatch.setitem(sys.modules, path, module)
    vars(sys.modules[name]).update(members)
    return sys.modules[name]


def hide(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Make the import of a program fail, as if it were not installed."""
    for name in [n for n in sys.modules if n == program or n.startswith(f"{program}.")]:
        monkeypatch.delitem(sys.modules, name)

    class Missing:
        @staticmethod
        def find_spec(name: str, *_: Any) -> None:
            if name.split(".", maxsplit=1)[0] == program:
                raise ModuleNotFoundError(f"No module named {program!r}", name=program)

    monkeypatch.setattr(sys, "meta_path", [Missing, *sys.meta_path])
