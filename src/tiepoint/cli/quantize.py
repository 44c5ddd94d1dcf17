"""`tiepoint quantize`: measure the activation maxima that `--precision int8` needs."""

from __future__ import annotations

import typer

from tiepoint.cli import options
from tiepoint.cli.output import show
from tiepoint.cli.sample_options import Count, Folder, Photos, Seed, load_folder, load_images
from tiepoint.errors import ConfigError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@options.command(app, "tiepoint quantize my_checkpoint --photos photos")
def quantize(
    checkpoint: Folder,
    photos: Photos = None,
    count: Count = 60,
    seed: Seed = 0,
    threads: options.Threads = None,
) -> None:
    """Measure the activation maxima of a checkpoint's layers, for --precision int8.

    Adds quantization.json to the folder; the weights do not change. It takes under a minute.
    """
    from tiepoint.config import ProcessorConfig
    from tiepoint.network import inputs
    from tiepoint.network.openvino_graph import measure_activation_maxima
    from tiepoint.weights import activation_maxima

    loaded = load_folder(checkpoint)
    layers = activation_maxima.quantised_layers(loaded.network)
    if not layers:
        raise ConfigError(
            f"{checkpoint}: no layer has {activation_maxima.LEAST_CHANNELS} or more inputs, so "
            "int8 would not be faster; use --precision bf16 or f32"
        )
    images = load_images(photos, count, seed)
    pixels = (inputs.prepare([image], ProcessorConfig())[0][0, 0] for image in images)
    measured = measure_activation_maxima(loaded, pixels, threads=threads)
    maxima = activation_maxima.mean_activation_maxima(measured, layers)
    path = activation_maxima.save_activation_maxima(checkpoint, maxima, loaded.sha256)
    show(f"wrote {path}")
