"""glue-factory takes the module by its name, and gets keypoints in its own convention."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="glue-factory's models are torch modules")

from support.other_programs import hide, install  # noqa: E402
from tiepoint import ConfigError, Features  # noqa: E402
from tiepoint.errors import MissingProgramError  # noqa: E402
from tiepoint.integrations import glue_factory  # noqa: E402

NAME = "tiepoint.integrations.glue_factory"


class Configuration(SimpleNamespace):
    """Attributes and items, as OmegaConf has them."""

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


class Meta(type):
    """Collects the defaults of the bases before the body of a class runs."""

    @classmethod
    def __prepare__(cls, name: str, bases: tuple[type, ...], /, **_: Any) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for base in bases:
            merged |= getattr(base, "base_default_conf", {}) | getattr(base, "default_conf", {})
        return {"base_default_conf": merged}


class BaseModel(torch.nn.Module, metaclass=Meta):
    """The steps of glue-factory's base class."""

    default_conf: ClassVar[dict[str, Any]] = {"name": None, "trainable": True}
    base_default_conf: ClassVar[dict[str, Any]] = {}
    required_data_keys: ClassVar[list[str]] = []

    def __init__(self, conf: dict[str, Any]) -> None:
        super().__init__()
        self.conf = Configuration(**{**self.base_default_conf, **self.default_conf, **conf})
        self.initialized = False
        self._init(self.conf)

    def set_initialized(self) -> None:
        self.initialized = True

    def forward(self, data: dict[str, Any]) -> Any:
        assert all(name in data for name in self.required_data_keys)
        return self._forward(data)


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install(monkeypatch, "gluefactory.models.base_model", BaseModel=BaseModel)
    glue_factory.extractor.cache_clear()
    yield
    glue_factory.extractor.cache_clear()


def loaded_by_glue_factory(name: str) -> Any:
    """The class of a module: the only model defined there, or else its `__main_model__`."""
    assert importlib.util.find_spec(name) is not None
    module = __import__(name, fromlist=[""])
    kinds = [kind for _, kind in inspect.getmembers(module, inspect.isclass)]
    models = [k for k in kinds if k.__module__ == name and issubclass(k, BaseModel)]
    return models[0] if len(models) == 1 else module.__main_model__


def small(**settings: Any) -> Any:
    conf = {"name": NAME, "checkpoint": "small", "precision": "f32", **settings}
    return loaded_by_glue_factory(NAME)(conf).eval()


def tensor(photograph: np.ndarray) -> Any:
    return torch.from_numpy(np.moveaxis(photograph, 2, 0).astype(np.float32) / 255)[None]


def test_keypoints_are_half_a_pixel_further(photograph: np.ndarray, found: Features) -> None:
    model = small(max_num_keypoints=120)
    assert model.initialized and model.conf.name == NAME
    output = model({"image": tensor(photograph)})
    assert set(output) == {"keypoints", "keypoint_scores", "descriptors"}
    np.testing.assert_allclose(output["keypoints"][0], found.xy + 0.5, atol=1e-3)
    np.testing.assert_allclose(output["keypoint_scores"][0], found.scores, atol=1e-5)
    np.testing.assert_allclose(output["descriptors"][0], found.descriptors, atol=1e-4)
    assert all(value.dtype == torch.float32 for value in output.values())


def test_padding_has_no_keypoints_and_counts_can_be_forced(
    photograph: np.ndarray, found: Features
) -> None:
    images = torch.ones(2, 3, 120, 150)
    images[0, :, :96, :128] = tensor(photograph)[0]
    images[1, :, :40, :48] = 0.5
    sizes = torch.tensor([[128, 96], [48, 40]])
    model = small(max_num_keypoints=150, force_num_keypoints=True)
    output = model({"image": images, "image_size": sizes})
    assert output["keypoints"].shape == (2, 150, 2)
    scores = output["keypoint_scores"].numpy()
    assert scores[0, 0] > 0 and not scores[1].any() and not output["descriptors"][1].any()
    np.testing.assert_allclose(output["keypoints"][0, :100], found.xy[:100] + 0.5, atol=1e-3)


def test_a_ragged_batch_is_refused_with_the_setting_that_helps(photograph: np.ndarray) -> None:
    both = torch.cat([tensor(photograph), torch.full((1, 3, 96, 128), 0.5)])
    with pytest.raises(ConfigError, match="force_num_keypoints"):
        small()({"image": both})
    with pytest.raises(ConfigError, match="max_num_keypoints"):
        small(force_num_keypoints=True)


def test_the_loss_is_left_to_glue_factory(photograph: np.ndarray) -> None:
    with pytest.raises(NotImplementedError):
        small().loss({}, {})


def test_the_module_is_imported_without_glue_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "gluefactory")
    glue_factory.extractor.cache_clear()
    with pytest.raises(MissingProgramError, match="glue-factory is not installed"):
        _ = glue_factory.__main_model__
    with pytest.raises(AttributeError, match="other"):
        _ = glue_factory.other
