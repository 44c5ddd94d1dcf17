"""hloc finds tiepoint as one of its extractors, and its results are what hloc stores."""

from __future__ import annotations

import inspect
import sys
from typing import Any, ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="hloc's extractors are torch modules")

from support.other_programs import hide, install  # noqa: E402
from tiepoint import ConfigError, Features  # noqa: E402
from tiepoint.errors import MissingProgramError, TiepointError  # noqa: E402
from tiepoint.integrations import hloc  # noqa: E402


class BaseModel(torch.nn.Module):
    """The steps of hloc's base class: defaults, `_init`, required inputs, `_forward`."""

    default_conf: ClassVar[dict[str, Any]] = {}
    required_inputs: ClassVar[list[str]] = []

    def __init__(self, conf: dict[str, Any]) -> None:
        super().__init__()
        self.conf = {**self.default_conf, **conf}
        self._init(self.conf)

    def forward(self, data: dict[str, Any]) -> Any:
        assert all(name in data for name in self.required_inputs)
        return self._forward(data)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, hloc.MODULE, raising=False)
    install(monkeypatch, "hloc.utils.base_model", BaseModel=BaseModel)
    install(monkeypatch, "hloc.extractors")
    yield  # type: ignore[misc]
    sys.modules.pop(hloc.MODULE, None)


def loaded_by_hloc(name: str) -> type:
    """The class that hloc takes: the only model that is defined in the extractor's module."""
    path = f"hloc.extractors.{name}"
    module = __import__(path, fromlist=[""])
    members = [kind for _, kind in inspect.getmembers(module, inspect.isclass)]
    (model,) = [k for k in members if k.__module__ == path and issubclass(k, BaseModel)]
    return model


def tensor(photograph: np.ndarray) -> Any:
    return torch.from_numpy(np.moveaxis(photograph, 2, 0).astype(np.float32) / 255)[None]


def small(**options: Any) -> Any:
    conf = hloc.configuration(checkpoint="small", max_keypoints=120, **options)
    return loaded_by_hloc(conf["model"]["name"])({**conf["model"], "precision": "f32"}).eval()


@pytest.mark.usefixtures("installed")
def test_hloc_gets_the_keypoints_of_the_detector(photograph: np.ndarray, found: Features) -> None:
    with torch.no_grad():
        prediction = small()({"image": tensor(photograph)})
    stored = {name: value[0].cpu().numpy() for name, value in prediction.items()}
    assert set(stored) == {"keypoints", "scores", "descriptors"}
    assert {value.dtype for value in stored.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(stored["keypoints"], found.xy, atol=1e-3)  # no half pixel
    np.testing.assert_allclose(stored["scores"], found.scores, atol=1e-5)
    assert found.descriptors is not None
    np.testing.assert_allclose(stored["descriptors"], found.descriptors.T, atol=1e-4)  # D N


@pytest.mark.usefixtures("installed")
def test_an_image_of_one_channel_and_an_empty_one_work() -> None:
    prediction = small()({"image": torch.full((1, 1, 40, 48), 0.5)})
    assert prediction["keypoints"].shape == (1, 0, 2)
    assert prediction["descriptors"].shape[0] == 1 and prediction["descriptors"].shape[2] == 0


@pytest.mark.usefixtures("installed")
def test_wrong_settings_and_batches_are_refused(photograph: np.ndarray) -> None:
    with pytest.raises(TiepointError, match="keypoint_count"):
        small(keypoint_count=3)
    with pytest.raises(ConfigError, match="a batch of 2 images"):
        small()({"image": tensor(photograph).repeat(2, 1, 1, 1)})


@pytest.mark.usefixtures("installed")
def test_registering_twice_keeps_one_class() -> None:
    assert hloc.register() is hloc.register() is loaded_by_hloc("tiepoint")


def test_without_hloc_the_error_has_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, hloc.MODULE, raising=False)
    hide(monkeypatch, "hloc")
    with pytest.raises(MissingProgramError, match="Hierarchical-Localization") as caught:
        hloc.register()
    assert isinstance(caught.value, ImportError) and hloc.MODULE not in sys.modules


def test_a_dependency_that_a_program_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, hloc.MODULE, raising=False)
    install(monkeypatch, "hloc")
    hide(monkeypatch, "hloc")

    class Broken:
        @staticmethod
        def find_spec(name: str, *_: Any) -> None:
            raise ModuleNotFoundError("No module named 'pycolmap'", name="pycolmap")

    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match="pycolmap"):
        hloc.register()
