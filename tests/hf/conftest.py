"""transformers itself, where the pinned version is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest


@pytest.fixture(scope="session")
def theirs() -> Any:
    """transformers' own classes, with the processor it uses where torchvision is missing."""
    pytest.importorskip("torch", reason="the guide's classes need the extra torch")
    from support.guide_models import PINNED

    try:
        installed = version("transformers")
    except PackageNotFoundError:
        pytest.skip(f"transformers is not installed; compared with {PINNED}")
    if installed != PINNED:
        pytest.skip(f"transformers is {installed}; compared with {PINNED}")
    import transformers

    return transformers
