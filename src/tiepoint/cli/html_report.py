"""`tiepoint report`: results -> one HTML file. The messages of all commands are in `cli.report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiepoint.cli import exit_codes, options
from tiepoint.cli.output import STDOUT, show, write_stdout
from tiepoint.cli.report import complain, stop
from tiepoint.errors import ConfigError

app = typer.Typer(add_completion=False, rich_markup_mode=None)

LANGUAGES = ("en", "ko")

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Output of `register --json` (one object or line per pair), `compare --json` or "
        "`evaluate -o`; folder of `train` or of a checkpoint; store of `detect`.",
    ),
]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="FILE.html", help="The page; - writes it to stdout."),
]
Title = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Heading of the page.", show_default=False)
]
Language = Annotated[
    str, typer.Option(metavar="en|ko", help="Language of the page; reasons stay English.")
]
Pictures = Annotated[
    bool,
    typer.Option(
        "--pictures/--no-pictures",
        help="Draw the images of registrations, which are read where they were.",
    ),
]


@options.command(
    app,
    "tiepoint report registration.json -o report.html",
    "tiepoint report results.json runs/mine features.store -o report.html --language ko",
)
def report(
    sources: Sources,
    *,
    out: Out,
    title: Title = None,
    language: Language = LANGUAGES[0],
    pictures: Pictures = True,
    overwrite: options.Overwrite = False,
) -> None:
    """Make one HTML file of results, which needs no other file and can be mailed.

    Exit status: 0 all sources are in the page, 1 some could not be read and are listed in it, 2
    wrong usage, 3 none could be read: no page is written.
    """
    if language not in LANGUAGES:
        raise ConfigError(f"--language is {language!r}, expected one of {', '.join(LANGUAGES)}")
    if out != STDOUT:
        options.check_file("-o", out, (".html", ".htm"), overwrite=overwrite)
    from tiepoint.files.writing import write_bytes
    from tiepoint.reports.report import make_report

    made = make_report(
        sources,
        title=title,
        language="ko" if language == "ko" else "en",
        pictures=pictures,
    )
    for _, reason in made.failures:
        complain(reason)
    if not made.sections:
        stop("nothing could be read", exit_codes.NOTHING_READABLE)
    if out == STDOUT:
        write_stdout(made.page)
    else:
        write_bytes(out, made.page)
        show(f"{out}: {len(made.page) / 1e6:.2f} MB")
    if made.failures:
        stop(f"{len(made.failures)} sources could not be read", exit_codes.FAILED)
