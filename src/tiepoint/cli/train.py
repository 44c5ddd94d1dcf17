"""`tiepoint train`: arguments of the command line -> a training run."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, cast

import typer

from tiepoint.cli import exit_codes, options
from tiepoint.cli.output import show
from tiepoint.errors import ConfigError
from tiepoint.training import presets, setup
from tiepoint.training.scenes.settings import TRAINING_DATA

if TYPE_CHECKING:
    from tiepoint.training.runs import Result

app = typer.Typer(add_completion=False, rich_markup_mode=None)

DEFAULT_PRESET = "cpu"
_MIX = ",".join(f"{kind}={share:g}" for kind, share in TRAINING_DATA.mix)

Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder of the new run: state, log and checkpoint."),
]
Photos = Annotated[
    list[Path],
    typer.Option(
        help="Folder with photographs to train on as well. A fifth of them, chosen by name, is "
        "held out for the benchmark. Repeat the option for more folders."
    ),
]
Mix = Annotated[
    str | None,
    typer.Option(
        metavar="KIND=SHARE,...",
        help=f"Kinds of drawn scenes and their shares. Default: {_MIX}. A kind that is not listed "
        "is not drawn.",
    ),
]
PresetName = Annotated[str, typer.Option("--preset", help=f"Recipe: {', '.join(presets.PRESETS)}.")]
Resume = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Resume the stopped run in this folder.")
]
Repeat = Annotated[
    Path | None,
    typer.Option(
        metavar="MANIFEST",
        help="Repeat the training of a checkpoint, given its manifest.json: same recipe, data, "
        "seed and steps.",
    ),
]
Start = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Start from the network of the finished run in this folder, with a new schedule. "
        "Needs another --seed. This trains a network over several evenings.",
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        metavar="CHECKPOINT",
        help="Also learn from the outputs of this checkpoint: for a small network.",
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(help="Total budget; the schedule adapts to it. Default: the preset's.", min=0),
]
Steps = Annotated[int | None, typer.Option(help="Budget in steps instead of minutes.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed of the initial weights and the drawn scenes.", min=0)]
Workers = Annotated[
    int | None,
    typer.Option(help="Number of processes that draw scenes. Default: all cores but one.", min=0),
]
Threads = Annotated[
    int | None,
    typer.Option(help="Number of threads that train on a CPU. Default: one per core.", min=1),
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Run the network through torch.compile: a minute's wait per stage, then faster "
        "steps. Default: on a CPU with a C++ compiler, for budgets of at least "
        f"{setup.COMPILE_FROM_MINUTES:g} minutes.",
    ),
]


@options.command(
    app,
    "tiepoint train -o my_run --photos photos --minutes 240",
    "tiepoint train --resume my_run",
)
def train(
    out: Out = None,
    photos: Photos = [],  # noqa: B006 - typer copies it
    mix: Mix = None,
    preset: PresetName = DEFAULT_PRESET,
    device: options.Device = options.AUTO,
    resume: Resume = None,
    repeat: Repeat = None,
    start: Start = None,
    teacher: Teacher = None,
    minutes: Minutes = None,
    steps: Steps = None,
    seed: Seed = 0,
    workers: Workers = None,
    threads: Threads = None,
    compile_network: Compile = None,
) -> None:
    """Train a network on generated scenes, and on photographs if given.

    Writes state.pt (every minute and when stopped), log.jsonl, curves.png and the folder
    checkpoint, which every other command takes as --checkpoint. Resume a stopped run by --resume.
    Exit status: 0 done, 1 the run was hopeless, 2 wrong arguments, 130 or 143 stopped by a signal.
    """
    _check_choices(
        out, resume, repeat, start,
        {"teacher": teacher, "minutes": minutes, "steps": steps, "mix": mix, "seed": seed or None,
         "preset": None if preset == DEFAULT_PRESET else preset},
    )  # fmt: skip
    recipe = presets.find_preset(cast(presets.PresetName, preset))
    execution = prepare_execution(workers, device, threads)

    def compiled(minutes: float | None) -> setup.Execution:
        return replace(execution, compiled=setup.should_compile(compile_network, minutes=minutes))

    from tiepoint.training import runs

    if resume is not None:
        finish(
            lambda: runs.resume(
                resume, minutes=minutes, benchmark_photos=photos or None,
                execution=compiled(minutes or setup.COMPILE_FROM_MINUTES),
            )
        )  # fmt: skip
    assert out is not None
    if repeat is not None:
        finish(
            lambda: runs.repeat(repeat, out, photos=[*map(str, photos)], execution=compiled(None)),
            resumed_by=f"--repeat {repeat} -o {out}",
        )
    data = replace(presets.training_data(recipe), photos=tuple(map(str, photos)))
    data = data if mix is None else replace(data, mix=read_mix(mix))
    recipe = recipe if start is None else presets.continuation_preset(recipe)
    recipe = recipe.with_budget(minutes, steps)
    finish(
        lambda: runs.train(
            recipe, data, out, start=start, teacher=teacher, seed=seed, benchmark_photos=photos,
            execution=compiled(recipe.minutes),
        )
    )  # fmt: skip


def _check_choices(
    out: Path | None,
    resume: Path | None,
    repeat: Path | None,
    start: Path | None,
    recipe_options: dict[str, object],
) -> None:
    """Raise ConfigError for options that exclude each other; a manifest has `recipe_options`."""
    given = [f"--{name}" for name, value in recipe_options.items() if value is not None]
    if (out is None) == (resume is None):
        raise ConfigError("give either -o for a new run or --resume for a stopped one")
    if sum(folder is not None for folder in (resume, repeat, start)) > 1:
        raise ConfigError(
            "give one of --resume, --repeat and --start; a resumed or repeated run keeps its own "
            "recipe and start"
        )
    if repeat is not None and given:
        raise ConfigError(f"--repeat takes these from the manifest; leave out {', '.join(given)}")


def read_mix(text: str) -> tuple[tuple[str, float], ...]:
    """Parse `shapes=0.2,leaves=0.8` into (kind, share) pairs; each kind once."""
    mix: dict[str, float] = {}
    for part in text.split(","):
        kind, _, share = (word.strip() for word in part.partition("="))
        try:
            value = float(share)
        except ValueError:
            value = math.nan
        if not kind or kind in mix or math.isnan(value):
            raise ConfigError(
                f"--mix has {part!r}, expected each kind once with a share, such as {_MIX}"
            )
        mix[kind] = value
    return tuple(mix.items())


def prepare_execution(workers: int | None, device: str, threads: int | None) -> setup.Execution:
    """Set up torch and the options that concern this machine, not the recipe."""
    setup.set_up_torch(threads)
    workers = setup.default_workers() if workers is None else workers
    return setup.Execution(workers=workers, device=device, echo=show)


def finish(run: Callable[[], Result], *, resumed_by: str | None = None) -> NoReturn:
    """Run, print the checkpoint, and exit; `resumed_by` replaces --resume in the advice."""
    from tiepoint.training.monitor import HopelessError

    try:
        result = run()
    except HopelessError as error:
        typer.echo(f"tiepoint: {error}", err=True)
        raise typer.Exit(exit_codes.FAILED) from error
    show(f"checkpoint: {result.checkpoint}")
    if result.signal is None:
        raise typer.Exit
    arguments = resumed_by or f"--resume {result.checkpoint.parent}"
    show(f"stopped; continue with: tiepoint train {arguments}")
    interrupted = result.signal == signal.SIGINT
    raise typer.Exit(exit_codes.INTERRUPTED if interrupted else exit_codes.TERMINATED)
