"""What holds for every command."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from support.commands import commands
from tiepoint._version import __version__
from tiepoint.cli import COMMANDS, app, exit_codes
from tiepoint.errors import ConfigError


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_has_two_meanings(name: str) -> None:
    for title, command in commands(name).items():
        flags = Counter(flag for option in command.params for flag in option.opts)
        twice = [flag for flag, times in flags.items() if times > 1]
        assert not twice, title


OPTIONS_OF_ALL = {"--quiet", "-q", "--verbose", "-v"}


MODELLED = ("register", "register-large", "compare", "view")


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_has_one_meaning_in_all_commands(name: str) -> None:
    """`--model` is the geometric model, `-c` the checkpoint, `--json` prints and takes no file."""
    for title, command in commands(name).items():
        options = {flag: option for option in command.params for flag in option.opts}
        assert set(options) >= OPTIONS_OF_ALL, title
        assert "--model" not in options or name in MODELLED, title
        assert "--json" not in options or options["--json"].is_flag, title
        if (checkpoint := options.get("--checkpoint")) is not None:
            assert "-c" in checkpoint.opts, title


RUNS_NO_NETWORK = {"warp", "scenes", "convert", "samples", "info", "report"}


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - RUNS_NO_NETWORK))
def test_the_number_of_threads_can_be_limited(name: str) -> None:
    for title, command in commands(name).items():
        assert "--threads" in {flag for option in command.params for flag in option.opts}, title


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_examples_that_can_be_typed(name: str) -> None:
    for title, command in commands(name).items():
        _, _, text = (command.epilog or "").partition("Examples:\n")
        examples = [part.strip() for part in re.split(r"[|\n]", text) if "tiepoint " in part]
        assert any(example.startswith(f"tiepoint {title}") for example in examples), title
        for example in examples:
            parse(shlex.split(example.partition(" > ")[0]))


def parse(words: list[str]) -> None:
    """Raise for an unknown command or option, without running anything."""
    command, context = typer.main.get_command(app), None
    while True:
        name, *words = words
        context = command.make_context(name, list(words), parent=context)
        if not isinstance(command, typer.core.TyperGroup):
            return
        name, command, words = command.resolve_command(context, words)
        words = [name, *words]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_option_and_argument_has_a_help_text(name: str) -> None:
    for title, command in commands(name).items():
        summary = (command.help or "").split("\n\n")[0]
        assert summary.endswith(".") and summary[0].isupper(), title
        for option in command.params:
            if option.name != "help":
                text = getattr(option, "help", None)
                assert text and text.endswith((".", ")")), f"{title} {option.name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_output_is_named_out_everywhere(name: str) -> None:
    for title, command in commands(name).items():
        for option in command.params:
            if "-o" in option.opts:
                assert "--out" in option.opts, title


def test_without_a_command_the_commands_are_listed() -> None:
    result = CliRunner().invoke(app, [])
    assert set(COMMANDS) <= set((result.stdout + result.stderr).split())


def test_an_unknown_command_is_wrong_usage() -> None:
    result = CliRunner().invoke(app, ["detec", "x.png"])
    assert result.exit_code == exit_codes.USAGE
    assert "No such command 'detec'. Did you mean 'detect'?" in result.stderr


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version_is_printed(flag: str) -> None:
    result = CliRunner().invoke(app, [flag])
    assert (result.exit_code, result.stdout) == (0, f"tiepoint {__version__}\n")


@pytest.mark.parametrize(
    ("typed", "expected"), [("regi", "register"), ("register --over", "--overlay")]
)
def test_completion_offers_commands_and_options(typed: str, expected: str) -> None:
    words = {"COMP_WORDS": f"tiepoint {typed}", "COMP_CWORD": str(len(typed.split()))}
    asked = {"_TIEPOINT_COMPLETE": "complete_bash", **words}
    result = CliRunner().invoke(app, [], prog_name="tiepoint", env=asked)
    assert expected in result.stdout.split()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("threshold is 2"), exit_codes.USAGE, "tiepoint: threshold is 2\n"),
        (KeyboardInterrupt(), exit_codes.INTERRUPTED, "tiepoint: interrupted\n"),
    ],
)
def test_an_error_of_the_user_is_one_line(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str:
        raise error

    monkeypatch.setattr("platform.release", fail)
    result = CliRunner().invoke(app, ["info"])
    assert (result.exit_code, result.stderr, result.stdout) == (code, message, "")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise RuntimeError("a bug")

    monkeypatch.setattr("platform.release", fail)
    assert isinstance(CliRunner().invoke(app, ["info"]).exception, RuntimeError)


def test_the_exit_codes_are_those_that_help_states() -> None:
    stated = {
        "detect": ("0 all done", "1 some images failed", "2 wrong usage", "3 nothing readable"),
        "match": ("0 all done", "1 some pairs failed", "2 wrong usage", "3 nothing readable"),
        "register": ("0 registered", "2 wrong usage", "3 an image cannot", "4 not registered"),
        "register-large": (
            "0 registered",
            "2 wrong usage",
            "3 an image cannot",
            "4 not registered",
        ),
        "warp": ("0 done", "2 wrong usage", "3 a file cannot"),
    }
    known = {
        "0": exit_codes.DONE, "1": exit_codes.FAILED, "2": exit_codes.USAGE,
        "3": exit_codes.NOTHING_READABLE, "4": exit_codes.NOT_REGISTERED,
    }  # fmt: skip
    for name, phrases in stated.items():
        text = " ".join((commands(name)[name].help or "").split())
        for phrase in phrases:
            assert phrase in text
            assert str(known[phrase[0]]) == phrase[0]


@pytest.mark.skipif(os.name == "nt", reason="signals differ on Windows")
@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_stop_that_comes_within_a_callback_is_not_lost(number: str, code: int) -> None:
    program = f"""
import signal, time
from tiepoint import cli
class Work:
    def __del__(self):  # what is raised here Python prints and forgets
        signal.raise_signal(signal.{number})
def app():
    try:
        Work()
        time.sleep(30)
    except KeyboardInterrupt:
        raise SystemExit(130)
cli.app = app
cli.main()
"""
    source = str(Path(__file__).resolve().parents[2] / "src")
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": source}, timeout=20,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code and not done.stderr
