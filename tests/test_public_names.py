"""The library's face: what `import tiepoint` offers, and nothing else."""

from __future__ import annotations

import importlib.util

import pytest

import tiepoint

PLAIN = {
    "CheckpointError", "ConfigError", "DetectionConfig", "Detector", "EngineError", "Features",
    "FormatError", "ImageError", "Matches", "MatchingConfig", "MissingExtraError",
    "NetworkConfig", "OpenCVFeature", "OutputError", "ProcessorConfig", "TiepointError",
    "__version__", "detect_tiled", "load", "load_matches", "match", "plot", "plot_matches", "save",
    "save_matches",
    "LargeRegistration", "Registration", "RegistrationConfig", "RegistrationError", "register",
    "register_large", "sample_views", "TrackedFrame", "TrackingConfig", "load_tracks", "track",
    "warp", "Panorama", "stitch",
}  # fmt: skip
GUIDE = {
    "AutoImageProcessor", "AutoModelForKeypointMatching", "LightGlueConfig",
    "LightGlueForKeypointMatching", "LightGlueImageProcessor", "LightGlueKeypointMatchingOutput",
    "SuperPointConfig", "SuperPointForKeypointDetection",
    "SuperPointImageProcessor", "SuperPointKeypointDescriptionOutput",
}  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert set(tiepoint.__all__) == PLAIN
    assert set(tiepoint._HOME) | {"__version__"} == PLAIN | GUIDE


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_every_name_loads_and_says_what_it_is_for(name: str) -> None:
    value = getattr(tiepoint, name)
    if name != "__version__":
        assert (value.__doc__ or "").strip()
    assert name in dir(tiepoint)


def test_a_star_import_brings_every_name_that_needs_no_torch() -> None:
    names: dict[str, object] = {}
    exec("from tiepoint import *", names)
    assert set(names) - {"__builtins__"} == PLAIN


@pytest.mark.parametrize("name", sorted(GUIDE))
def test_the_guides_names_load_with_torch(name: str) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs the extra torch")
    assert (getattr(tiepoint, name).__doc__ or "").strip()


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Detecter'"):
        tiepoint.Detecter
