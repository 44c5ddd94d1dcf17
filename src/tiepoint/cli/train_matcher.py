"""`tiepoint train-matcher`: arguments of the command line -> a run of the learned matcher."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tiepoint.cli import exit_codes, options, train
from tiepoint.cli.output import show
from tiepoint.errors import ConfigError
from tiepoint.network.cores import usable_cores
from tiepoint.training.matcher import settings

if TYPE_CHECKING:
    from tiepoint.training.matcher.runs import MatcherResult

app = typer.Typer(add_completion=False, rich_markup_mode=None)

DEFAULT_PRESET = "cpu"

Checkpoint = Annotated[
    str | None,
    typer.Argument(
        metavar="[CHECKPOINT]",
        help="Detector whose descriptors the matcher learns: bundled name, folder of a checkpoint, "
        "or Hub id org/name. Required without --repeat.",
        show_default=False,
    ),
]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", help="Folder of the run: features, state, log and the matcher."),
]
Photos = Annotated[
    list[Path],
    typer.Option(
        help="Folder with photographs for the scenes. A fifth of them, chosen by name, is used for "
        "held-out pairs only. Repeat the option for more folders."
    ),
]
PresetName = Annotated[
    str, typer.Option("--preset", help=f"Recipe: {', '.join(settings.MATCHER_PRESETS)}.")
]
Width = Annotated[
    int | None,
    typer.Option(help="Channels of the network. Default: the preset's.", min=1),
]
Layers = Annotated[
    int | None,
    typer.Option(help="Layers of the network. Default: the preset's.", min=1),
]
Scenes = Annotated[
    int | None,
    typer.Option(
        help="Number of scenes; with a budget in minutes the maximum number. Default: the "
        "preset's. A hundred scenes take up to 150 MB.",
        min=2,
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        help="Total budget. About a quarter is for the scenes. Default: the preset's.", min=0
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(help="Budget in steps instead of minutes, after drawing all scenes.", min=1),
]
Workers = Annotated[
    int | None,
    typer.Option(help="Number of processes that draw scenes. Default: one per core.", min=0),
]
Start = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Start from the weights of this matcher: its folder, or the folder or name of a "
        "checkpoint with one. Give another --seed. Default: random weights.",
    ),
]
Repeat = Annotated[
    Path | None,
    typer.Option(
        metavar="MANIFEST",
        help="Repeat the training of a matcher, given its manifest.json: same recipe, data, seed, "
        "scenes and steps.",
    ),
]


@options.command(
    app,
    "tiepoint train-matcher base -o my_matcher --photos photos --minutes 120",
    "tiepoint train-matcher my_run/checkpoint -o my_matcher --preset gpu --device cuda",
)
def train_matcher(
    out: Out,
    checkpoint: Checkpoint = None,
    photos: Photos = [],  # noqa: B006 - typer copies it
    preset: PresetName = DEFAULT_PRESET,
    width: Width = None,
    layers: Layers = None,
    scenes: Scenes = None,
    device: options.Device = options.AUTO,
    start: Start = None,
    repeat: Repeat = None,
    minutes: Minutes = None,
    steps: Steps = None,
    seed: train.Seed = 0,
    workers: Workers = None,
    threads: train.Threads = None,
) -> None:
    """Train a learned matcher on the descriptors of a detector's checkpoint.

    First draws scenes and detects in them (folder features), then trains. Writes config.json,
    model.safetensors and manifest.json, and for the run state.pt, log.jsonl and curves.png. The
    same command resumes a stopped run.
    Exit status: 0 done, 1 the run was hopeless, 2 wrong arguments, 130 or 143 stopped by a signal.
    """
    _check_choices(
        checkpoint, repeat,
        {"minutes": minutes, "steps": steps, "scenes": scenes, "width": width, "layers": layers,
         "seed": seed or None, "start": start,
         "preset": None if preset == DEFAULT_PRESET else preset},
    )  # fmt: skip
    workers = usable_cores() if workers is None else workers
    execution = train.prepare_execution(workers, device, threads)
    from tiepoint.training.matcher import runs
    from tiepoint.training.monitor import HopelessError
    from tiepoint.weights.checkpoint import load_checkpoint

    folders = tuple(map(str, photos))
    try:
        if repeat is not None:
            result = runs.repeat_matcher(
                repeat, out, checkpoint=checkpoint, photos=folders, execution=execution
            )
        else:
            assert checkpoint is not None
            length = load_checkpoint(checkpoint).network.descriptor_decoder_dim
            name = cast(settings.MatcherPresetName, preset)
            recipe = settings.find_matcher_preset(name, length, width, layers)
            recipe = recipe.with_budget(minutes, steps)
            recipe = recipe if scenes is None else replace(recipe, scenes=scenes)
            data = settings.SMOKE_DATA if preset == "smoke" else settings.MatcherData()
            data = replace(data, photos=folders)
            result = runs.train_matcher(
                checkpoint, out, recipe, data, seed=seed, start=start, execution=execution
            )
    except HopelessError as error:
        typer.echo(f"tiepoint: {error}", err=True)
        raise typer.Exit(exit_codes.FAILED) from error
    _finish(result)


def _finish(result: MatcherResult) -> None:
    """Print where the matcher is, and exit with the code of a signal."""
    if result.has_matcher:
        show(f"matcher: {result.folder}")
    if result.signal is None:
        return
    show("stopped; the same command continues the run")
    interrupted = result.signal == signal.SIGINT
    raise typer.Exit(exit_codes.INTERRUPTED if interrupted else exit_codes.TERMINATED)


def _check_choices(
    checkpoint: str | None, repeat: Path | None, recipe_options: dict[str, object]
) -> None:
    """Raise ConfigError for options that exclude each other; a manifest has `recipe_options`."""
    given = [f"--{name}" for name, value in recipe_options.items() if value is not None]
    if repeat is None and checkpoint is None:
        raise ConfigError("give the CHECKPOINT of the detector, such as base")
    if repeat is not None and given:
        raise ConfigError(f"--repeat takes these from the manifest; leave out {', '.join(given)}")
