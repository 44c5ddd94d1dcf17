"""The guides' classes that choose by the files of a checkpoint."""

from __future__ import annotations

from os import PathLike
from typing import Any, Unpack

from tiepoint.files.paths import is_file
from tiepoint.hf.image_processor import ProcessorOptions, locate_processor
from tiepoint.hf.matching_config import LightGlueConfig
from tiepoint.hf.matching_model import LightGlueForKeypointMatching
from tiepoint.hf.matching_processor import LightGlueImageProcessor
from tiepoint.hf.processor import SuperPointImageProcessor
from tiepoint.matching.learned.folder import MODEL_TYPE
from tiepoint.weights.folder import CONFIG_FILE, PREPROCESSOR_FILE, read_json


class AutoImageProcessor:
    """Loads the processor of a checkpoint: for single images, or for the pairs of a matcher."""

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | PathLike[str] | None = None, **options: Unpack[ProcessorOptions]
    ) -> Any:
        """See `SuperPointImageProcessor.from_pretrained`.

        Returns:
            A `SuperPointImageProcessor`, or for a matcher a `LightGlueImageProcessor`.
        """
        folder, settings = locate_processor(name_or_path, options)
        path = folder / PREPROCESSOR_FILE
        if is_file(path):
            is_pairs = LightGlueImageProcessor.is_type(read_json(path).get("image_processor_type"))
        else:
            config = folder / CONFIG_FILE
            is_pairs = is_file(config) and read_json(config).get("model_type") == MODEL_TYPE
        kind = LightGlueImageProcessor if is_pairs else SuperPointImageProcessor
        return kind.in_folder(folder, settings)


class AutoModelForKeypointMatching:
    """Loads the model of a matcher's checkpoint; there is one type."""

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | PathLike[str] | None = None, **options: Any
    ) -> LightGlueForKeypointMatching:
        """See `LightGlueForKeypointMatching.from_pretrained`."""
        return LightGlueForKeypointMatching.from_pretrained(name_or_path, **options)

    @classmethod
    def from_config(cls, config: LightGlueConfig) -> LightGlueForKeypointMatching:
        """A model of random weights."""
        return LightGlueForKeypointMatching(config)
