"""Provenance: the weights and settings that made features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from tiepoint.errors import ConfigError

Rules = Literal["exact", "transformers"]
"""Whose rules the weights were made for."""


@dataclass(frozen=True)
class Provenance:
    """The weights and settings that made features. Files store it as JSON.

    Attributes:
        checkpoint: Bundled name, absolute folder or Hub id.
        weights_sha256: SHA-256 of the weights; descriptors of other weights cannot be compared.
        rules: Rules that the weights follow.
        settings: Every setting of `ProcessorConfig` and `DetectionConfig`.
        engine, device, precision: What the network ran on; results differ by round-off only.
        tiepoint_version: Version of tiepoint.
        revision: Commit of a checkpoint from the Hub, or None.
        rotation_crc32: CRC of the checkpoint's rotation matrix, or None if it has none.
    """

    checkpoint: str
    weights_sha256: str
    rules: Rules
    settings: Mapping[str, Any]
    engine: str
    device: str
    precision: str
    tiepoint_version: str
    revision: str | None = None
    rotation_crc32: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> Provenance:
        """The reverse of `to_json`.

        Raises:
            ConfigError: Values that are no provenance.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"provenance is a {type(values).__name__}, expected an object")
        names = {f.name for f in fields(cls)}
        required = names - {"revision", "rotation_crc32"}
        if not required <= set(values) <= names:
            raise ConfigError(
                f"provenance has the entries {', '.join(sorted(map(str, values)))}, expected "
                f"{', '.join(sorted(names))}"
            )
        texts = names - {"settings"}
        if not isinstance(values["settings"], Mapping) or not all(
            isinstance(values.get(name), str | None) for name in texts
        ):
            raise ConfigError("provenance has values of the wrong type, expected texts")
        return cls(**values)

    def entry(self, name: str) -> Any:
        """The value of an entry that `differences` names, such as "settings.threshold"."""
        group, _, setting = name.partition(".")
        value = getattr(self, group)
        return value.get(setting) if setting else value

    def differences(self, other: Provenance) -> list[str]:
        """Entries that may change keypoints and differ: weights, rules and settings."""
        names = [
            name
            for name in ("checkpoint", "weights_sha256", "rules", "precision")
            if getattr(self, name) != getattr(other, name)
        ]
        settings = sorted({*self.settings, *other.settings})
        return names + [
            f"settings.{key}"
            for key in settings
            if self.settings.get(key) != other.settings.get(key)
        ]
