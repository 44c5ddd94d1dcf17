"""`tiepoint train`: arguments of the command line -> a training run."""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from tiepoint.cli import exit_codes, options
from tiepoint.errors import ConfigError, MissingExtraError, is_installed
from tiepoint.training.presets import PRESETS, Preset, going_on
from tiepoint.training.scenes.settings import DataConfig

if TYPE_CHECKING:
    from tiepoint.training.runs import Result

app = typer.Typer(add_completion=False, rich_markup_mode=None)

DEFAULT_PRESET = "cpu"
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # numbers from glibc's malloc.h
STOPPED: dict[int, int] = {
    signal.SIGINT: exit_codes.INTERRUPTED,
    signal.SIGTERM: exit_codes.TERMINATED,
}
"""Exit status by the number of the signal that stopped a run."""

_MIX = ",".join(f"{kind}={share:g}" for kind, share in DataConfig().mix)

Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder of the run: state, log, checkpoint.")
]
Photos = Annotated[
    list[Path],
    typer.Option(
        help="Folder with photographs to train on as well; a fifth of them, by name, is held out "
        "for the benchmark. Repeat it for more."
    ),
]
Mix = Annotated[
    str | None,
    typer.Option(
        metavar="KIND=SHARE,...",
        help=f"Kinds of drawn scenes and how often each comes: {_MIX}. A kind not named does not "
        "come at all.",
    ),
]
PresetName = Annotated[str, typer.Option("--preset", help=f"{', '.join(PRESETS)}.")]
Resume = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Go on with the run in this folder.")
]
Repeat = Annotated[
    Path | None,
    typer.Option(
        metavar="MANIFEST",
        help="Train anew with the recipe, data, seed and steps of this checkpoint's manifest.json.",
    ),
]
Start = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Start from the network of the run in this folder, with a schedule of its own: how "
        "weights grow over several evenings. Needs another --seed.",
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        metavar="CHECKPOINT",
        help="Learn the answers of this checkpoint as well: for a small network from a larger one.",
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(help="Budget in all; the schedule fits itself into it. Else the preset's.", min=0),
]
Steps = Annotated[int | None, typer.Option(help="Budget in steps instead of minutes.", min=1)]
Seed = Annotated[int, typer.Option(help="Another seed: other weights, other scenes.", min=0)]
Workers = Annotated[
    int | None,
    typer.Option(help="Processes that draw scenes; else all cores but one.", min=0),
]
Threads = Annotated[
    int | None,
    typer.Option(help="Threads that train on a CPU; else one per core.", min=1),
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Run the network through torch.compile. Else it is done on a CPU with a C++ compiler "
        "for budgets from 10 minutes on: it waits a minute per stage, then trains faster.",
    ),
]
COMPILE_FROM_MINUTES = 10.0


@app.command()
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
    """Train a network from generated scenes, and photographs if there are any.

    Writes state.pt (every minute, and when stopped), log.jsonl, curves.png and the folder
    checkpoint, which every other command takes as --checkpoint. A stopped run goes on with
    --resume. Exit status: 0 done, 1 the run was hopeless, 2 wrong arguments, 130 or 143 stopped
    by a signal.
    """
    _check_choices(
        out, resume, repeat, start,
        {"teacher": teacher, "minutes": minutes, "steps": steps, "mix": mix, "seed": seed or None,
         "preset": None if preset == DEFAULT_PRESET else preset},
    )  # fmt: skip
    if preset not in PRESETS:
        raise ConfigError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    drawing = default_workers() if workers is None else workers
    runs = prepare(threads)
    if resume is not None:
        finish(
            lambda: runs.resume(
                resume, minutes=minutes, workers=drawing, device=device,
                compiled=compiles(compile_network, minutes or COMPILE_FROM_MINUTES),
                benchmark_photos=photos or None, say=typer.echo,
            )
        )  # fmt: skip
    if out is not None and repeat is not None:
        finish(
            lambda: runs.repeat(
                repeat, out, photos=[str(folder) for folder in photos], workers=drawing,
                device=device, compiled=compiles(compile_network, None), say=typer.echo,
            ),
            again=f"--repeat {repeat} -o {out}",
        )  # fmt: skip
    elif out is not None:
        data = _data(photos, mix)
        chosen = runs.with_budget(_recipe(preset, start), minutes, steps)
        finish(
            lambda: runs.train(
                chosen, data, out, start=start, teacher=teacher, seed=seed, workers=drawing,
                device=device,
                compiled=compiles(compile_network, chosen.minutes),
                benchmark_photos=photos, say=typer.echo,
            )
        )  # fmt: skip


def _check_choices(
    out: Path | None,
    resume: Path | None,
    repeat: Path | None,
    start: Path | None,
    decided: dict[str, object],
) -> None:
    """Raise ConfigError for options that do not go together.

    Args:
        decided: What a manifest decides, by the option's name; None where it is not given.
    """
    own = [f"--{name}" for name, value in decided.items() if value is not None]
    if (out is None) == (resume is None):
        raise ConfigError("give either -o for a new run or --resume for one that was stopped")
    if sum(folder is not None for folder in (resume, repeat, start)) > 1:
        raise ConfigError(
            "give one of --resume, --repeat and --start: a run that is resumed or repeated keeps "
            "its own recipe and start"
        )
    if repeat is not None and own:
        raise ConfigError(f"--repeat takes all from the manifest: leave out {', '.join(own)}")


def _recipe(preset: str, start: Path | None) -> Preset:
    return PRESETS[preset] if start is None else going_on(PRESETS[preset])


def _data(photos: list[Path], mix: str | None) -> DataConfig:
    data = DataConfig(photos=tuple(str(folder) for folder in photos))
    return data if mix is None else replace(data, mix=read_mix(mix))


def read_mix(text: str) -> tuple[tuple[str, float], ...]:
    """`shapes=0.2,leaves=0.8` as (kind, share) each.

    Raises:
        ConfigError: Not of this form, or a kind twice.
    """
    mix: dict[str, float] = {}
    for part in text.split(","):
        kind, _, share = (word.strip() for word in part.partition("="))
        try:
            value = float(share)
        except ValueError:
            value = math.nan
        if not kind or kind in mix or math.isnan(value):
            raise ConfigError(
                f"--mix has {part!r}, expected kinds once each with a share, such as {_MIX}"
            )
        mix[kind] = value
    return tuple(mix.items())


def prepare(threads: int | None) -> ModuleType:
    """Load what trains, and set torch up as suits a process that does nothing else.

    Torch's threads wait for one another in every layer. They must sleep then, not spin: spinning
    takes the core from a worker and from the very thread that is waited for, and slows all of
    them down several times.
    """
    if not is_installed("torch"):
        raise MissingExtraError("Training", "torch")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported
    import torch

    torch.set_num_threads(threads or os.cpu_count() or 1)
    _keep_memory()
    torch.backends.cudnn.benchmark = True  # the sizes of a stage never change
    from tiepoint.training import runs

    return runs


def _keep_memory() -> None:
    """Have the C library keep freed memory for the next step, where it is glibc.

    Else every large tensor is fetched from the system and given back, page by page: a fifth of
    the time of a step on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28)):
            mallopt(option, value)


def compiles(wanted: bool | None, minutes: float | None) -> bool:
    """Whether to compile: as wanted, else on a CPU where a budget of so many minutes repays it."""
    if wanted is not None:
        return wanted
    import torch

    able = any(shutil.which(name) for name in ("g++", "clang++", "c++"))
    long = minutes is not None and minutes >= COMPILE_FROM_MINUTES
    return able and long and not torch.cuda.is_available()


def default_workers() -> int:
    """All cores but one, which trains."""
    return max(1, (os.cpu_count() or 1) - 1)


def finish(run: Callable[[], Result], again: str | None = None) -> None:
    """Run to the end and leave with the exit status that says how it ended.

    Args:
        again: Options by which a stopped run goes on, if not by --resume.
    """
    from tiepoint.training.trainer import HopelessError

    try:
        result = run()
    except HopelessError as error:
        typer.echo(f"tiepoint: {error}", err=True)
        raise typer.Exit(exit_codes.FAILED) from error
    typer.echo(f"checkpoint: {result.checkpoint}")
    if result.signal is not None:
        goes_on = again or f"--resume {result.checkpoint.parent}"
        typer.echo(f"stopped; go on with: tiepoint train {goes_on}")
        raise typer.Exit(STOPPED[result.signal])
