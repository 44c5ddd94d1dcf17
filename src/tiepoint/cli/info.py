"""`tiepoint info`: installed engines, devices, defaults and bundled checkpoints."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from tiepoint._version import __version__
from tiepoint.cli import options
from tiepoint.errors import CheckpointError, MissingExtraError

SIZE_HW = (480, 640)
"""Size of the image for which multiply-adds are printed."""

OPENCV_PACKAGES = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
)
"""Any one of them will do. All install the folder `cv2`, and overwrite one another's files."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@options.command(app, "tiepoint info --json", "tiepoint info features.store")
def info(
    store: Annotated[
        Path | None, typer.Argument(metavar="[STORE]", help="Store of features to describe.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show the version, engines, devices and bundled checkpoints, or what a store has."""
    if store is not None:
        from tiepoint.cli.store import describe

        typer.echo(describe(store, as_json=as_json))
        return
    facts = _facts()
    typer.echo(json.dumps(facts) if as_json else _as_text(facts))


def _facts() -> dict[str, Any]:
    from tiepoint.network import engines
    from tiepoint.network.cores import usable_cores
    from tiepoint.weights import checkpoint as weights

    try:
        default = engines.resolve_engine("auto", "auto", "auto")
    except MissingExtraError as error:
        default = engines.EngineChoice(f"none ({error})", "cpu", "f32")
    device = default.device
    return {
        "tiepoint": __version__,
        "python": platform.python_version(),
        # platform.platform() would start the program `uname`.
        "platform": f"{platform.system()}-{platform.release()}-{platform.machine()}",
        "processors": usable_cores(),
        "engines": {name: _version(name) for name in engines.ENGINES},
        "opencv": {name: version for name in OPENCV_PACKAGES if (version := _version(name))},
        "devices": ["cpu"] if device == "cpu" else [device, "cpu"],
        "default": default._asdict(),
        "checkpoints": [_checkpoint(name) for name in weights.bundled_checkpoints()],
    }


def _version(package: str) -> str | None:
    """The version of an installed package, without its import: torch alone takes seconds."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _checkpoint(name: str) -> dict[str, Any]:
    from tiepoint.weights import checkpoint as weights

    try:
        checkpoint = weights.load_checkpoint(name)
    except CheckpointError as error:
        return {"name": name, "error": str(error)}
    network = checkpoint.network
    return {
        "name": name,
        "default": name == weights.DEFAULT,
        "note": checkpoint.note,
        "encoder_hidden_sizes": list(network.encoder_hidden_sizes),
        "decoder_hidden_size": network.decoder_hidden_size,
        "descriptor_decoder_dim": network.descriptor_decoder_dim,
        "parameters": sum(tensor.size for tensor in checkpoint.tensors.values()),
        "multiply_adds": network.multiply_adds(SIZE_HW, checkpoint.detection.phases),
        "phases": checkpoint.detection.phases,
        "scales": list(checkpoint.detection.scales),
        "threshold": checkpoint.detection.threshold,
        "noise_floor": checkpoint.detection.noise_floor,
        "nms_radius": checkpoint.detection.nms_radius,
        "rules": checkpoint.rules,
        "sha256": checkpoint.sha256,
    }


def _as_text(facts: dict[str, Any]) -> str:
    default = facts["default"]
    engines = [f"{name} {version or 'not installed'}" for name, version in facts["engines"].items()]
    lines = [
        f"tiepoint     {facts['tiepoint']}",
        f"Python       {facts['python']} on {facts['platform']}, {facts['processors']} processors",
        f"engines      {', '.join(engines)}",
        f"OpenCV       {_opencv(list(facts['opencv'].items()))}",
        f"devices      {', '.join(facts['devices'])}",
        f"default      {default['engine']} on {default['device']}, {default['precision']}",
    ]
    for checkpoint in facts["checkpoints"]:
        lines += ["", *_checkpoint_lines(checkpoint)]
    return "\n".join(lines)


def _opencv(packages: list[tuple[str, str]]) -> str:
    if not packages:
        return "no package of that name: pip install opencv-python-headless"
    named = ", ".join(f"{name} {version}" for name, version in packages)
    if len(packages) == 1:
        return named
    names = " ".join(name for name, _ in packages)
    windows = [name for name, _ in packages if not name.endswith("headless")] or [packages[0][0]]
    return (
        f"{named}\n"
        "             These overwrite one another's files, so windows may be lost. Keep one:\n"
        f"             pip uninstall -y {names}\n"
        f"             pip install --no-deps {windows[-1]}"
    )


def _checkpoint_lines(facts: dict[str, Any]) -> list[str]:
    if "error" in facts:
        return [f"checkpoint   {facts['name']}: {facts['error']}"]
    mark = " (default)" if facts["default"] else ""
    note = f": {facts['note']}" if facts["note"] else ""
    scales = " and ".join(f"{scale:g}" for scale in facts["scales"])
    encoder = ", ".join(map(str, facts["encoder_hidden_sizes"]))
    return [
        f"checkpoint   {facts['name']}{mark}{note}",
        f"  widths     encoder {encoder}; heads {facts['decoder_hidden_size']}; "
        f"descriptors {facts['descriptor_decoder_dim']}",
        f"  parameters {facts['parameters']:,}; {facts['multiply_adds'] / 1e9:.1f} G multiply-adds "
        f"for {SIZE_HW[1]}x{SIZE_HW[0]} px",
        f"  scales     {scales} of the image's size; cell phases {facts['phases']}",
        f"  threshold  {facts['threshold']:g}, "
        f"noise floor {facts['noise_floor']:g}, NMS {facts['nms_radius']} px",
        f"  SHA-256    {facts['sha256']}",
    ]
