"""Checkpoints on the Hugging Face Hub: fetch one into its cache, push a folder.

`huggingface_hub` does the transfer and keeps the cache; it is imported only when a Hub id is used.
Its exceptions are re-raised as `CheckpointError` with a remedy.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, TypedDict, Unpack

from tiepoint._version import __version__
from tiepoint.errors import CheckpointError, MissingExtraError, is_installed
from tiepoint.files.paths import is_file
from tiepoint.weights.folder import (
    CONFIG_FILE,
    MANIFEST_FILE,
    MATCHER_FOLDER,
    OPTIONAL_FILES,
    PREPROCESSOR_FILE,
    WEIGHTS_FILE,
)

logger = logging.getLogger(__name__)

MATCHER_FILES = tuple(
    f"{MATCHER_FOLDER}/{name}" for name in (CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE)
)

TIMEOUT_S = 10.0
"""Timeout for one answer of the Hub; huggingface_hub's own default."""
MAX_RESTARTS = 2
"""A download that restarts more often than this fails. huggingface_hub itself would never give up,
because each byte that arrives resets its count of attempts."""

_LIBRARY: dict[str, Any] = {"library_name": "tiepoint", "library_version": __version__}
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl")
_LOG_IN = (
    "pass a token that may read it (token=...), set HF_TOKEN, or log in once with `hf auth login`"
)

Token = str | bool | None
"""A token; True for the one stored by `hf auth login`, False for none, None for the stored one if
there is one."""


class HubOptions(TypedDict, total=False):
    """Arguments that load a checkpoint from the Hub; the cache and folders need none of them.

    Attributes:
        revision: Branch, tag or commit; None is `main`.
        token: For private and gated repositories.
        cache_dir: Cache folder; None is huggingface_hub's own (HF_HOME, HF_HUB_CACHE).
        local_files_only: Use the cache only.
    """

    revision: str | None
    token: Token
    cache_dir: str | PathLike[str] | None
    local_files_only: bool


class PushOptions(TypedDict, total=False):
    """Arguments of an upload to the Hub.

    Attributes:
        token: Token that may write.
        private: Whether a new repository is private; None is the account's default.
        revision: Branch; None is `main`.
        commit_message: None is "Upload a checkpoint with tiepoint".
        create_pr: Open a pull request in place of a commit.
    """

    token: Token
    private: bool | None
    revision: str | None
    commit_message: str | None
    create_pr: bool


def is_id(text: str) -> bool:
    """Whether a text has the form of a Hub id, `org/name`."""
    return _ID.fullmatch(text) is not None


def fetch(repo_id: str, **options: Unpack[HubOptions]) -> tuple[Path, str | None]:
    """Download the checkpoint `org/name` into the cache, except for files that are there already.

    Returns:
        Its folder, and its commit, 40 hexadecimal digits, or None if the cache does not record it.

    Raises:
        CheckpointError: No such repository, revision or file; no permission; no connection and
            not in the cache; an interrupted download; weights only as a pickle.
        MissingExtraError: `huggingface_hub` is not installed.
    """
    _require_library(f"{repo_id!r} is no folder here, and loading it from the Hub")
    import huggingface_hub as hf

    revision, token = options.get("revision"), options.get("token")
    from_cache_only = options.get("local_files_only", False)
    cache_dir = options.get("cache_dir")
    cache_dir = None if cache_dir is None else Path(cache_dir)
    access: dict[str, Any] = {"token": token, "local_files_only": from_cache_only}
    common = {"cache_dir": cache_dir, **access, **_LIBRARY, **_progress_bar()}

    def cached(name: str, commit: str | None) -> Any:
        return hf.try_to_load_from_cache(repo_id, name, cache_dir=cache_dir, revision=commit)

    with _explained(repo_id, revision):
        whole = all(isinstance(cached(name, revision), str) for name in (CONFIG_FILE, WEIGHTS_FILE))
        if not whole and not from_cache_only:
            _check_listing(repo_id, revision, token)
        config = Path(hf.hf_hub_download(repo_id, CONFIG_FILE, revision=revision, **common))
        commit = config.parent.name  # the other files must be of the same commit
        for name in OPTIONAL_FILES:
            if cached(name, commit) is None:
                with _optional(from_cache_only=from_cache_only):
                    hf.hf_hub_download(repo_id, name, revision=commit, **common)
        weights = Path(hf.hf_hub_download(repo_id, WEIGHTS_FILE, revision=commit, **common))
    return weights.parent, commit if _COMMIT.fullmatch(commit) else None


def fetch_matcher(repo_id: str, revision: str | None = None) -> Path | None:
    """Download the learned matcher of the checkpoint `org/name`, unless the cache has it.

    Args:
        revision: Branch, tag or commit; None is `main`.

    Returns:
        Its folder; None if the repository has none.

    Raises:
        CheckpointError, MissingExtraError: As `fetch`.
    """
    _require_library(f"the learned matcher of {repo_id!r}, loaded from the Hub")
    import huggingface_hub as hf

    options = {**_LIBRARY, **_progress_bar()}
    config_file, weights_file, manifest_file = MATCHER_FILES
    config: str | None = None
    with _explained(repo_id, revision):
        with _optional(from_cache_only=False):
            config = hf.hf_hub_download(repo_id, config_file, revision=revision, **options)
        if config is None:
            return None
        folder = Path(config).parent
        commit = folder.parent.name  # the other files must be of the same commit
        hf.hf_hub_download(repo_id, weights_file, revision=commit, **options)
        with _optional(from_cache_only=False):
            hf.hf_hub_download(repo_id, manifest_file, revision=commit, **options)
    return folder


def sha256_in_cache(path: Path) -> str | None:
    """The SHA-256 that the Hub's cache gives as name to a file's blob; None if it is no link."""
    if not path.is_symlink():
        return None
    blob = path.readlink()
    named = blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name)
    return blob.name if named else None


def push(folder: str | Path, repo_id: str, **options: Unpack[PushOptions]) -> str:
    """Upload a checkpoint folder to the Hub in one commit; returns its or the pull request's URL.

    Args:
        folder: Folder with `config.json` and `model.safetensors`. Of other files only the optional
            ones of a checkpoint, `README.md` and those of its matcher are uploaded. A folder with
            `preprocessor_config.json` alone adds it to a checkpoint.
        repo_id: `org/name`; created if it does not exist.

    Raises:
        CheckpointError: The folder is no checkpoint, no permission, or no connection.
        MissingExtraError: `huggingface_hub` is not installed.
    """
    folder = Path(folder)
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not is_file(folder / name)]
    if missing and not (len(missing) == 2 and is_file(folder / PREPROCESSOR_FILE)):
        raise CheckpointError(f"{folder}: lacks {' and '.join(missing)}; save a checkpoint first")
    if not is_id(repo_id):
        raise CheckpointError(f"repository {repo_id!r}: expected an id of the form org/name")
    _require_library("an upload to the Hub")
    import huggingface_hub as hf

    own = (CONFIG_FILE, WEIGHTS_FILE, *OPTIONAL_FILES, "README.md")
    allowed = (*own, *MATCHER_FILES, f"{MATCHER_FOLDER}/README.md")
    names = [name for name in allowed if is_file(folder / name)]
    files = [hf.CommitOperationAdd(name, folder / name) for name in names]
    api = hf.HfApi(token=options.get("token"), **_LIBRARY)
    revision = options.get("revision")
    with _explained(repo_id, revision, writing=True):
        api.create_repo(repo_id, private=options.get("private"), exist_ok=True)
        message = options.get("commit_message") or "Upload a checkpoint with tiepoint"
        in_pr = options.get("create_pr", False)
        commit = api.create_commit(
            repo_id, files, commit_message=message, revision=revision, create_pr=in_pr
        )
    return commit.pr_url or commit.commit_url


def _require_library(what: str) -> None:
    if not is_installed("huggingface_hub"):
        raise MissingExtraError(what, "hub")


class _CutOffError(OSError):
    """A download that restarted too often."""


@cache
def _progress_bar() -> dict[str, Any]:
    """A progress bar that counts restarts, where hf_hub_download takes one."""
    import inspect

    from huggingface_hub import hf_hub_download, utils

    class Bar(utils.tqdm):  # type: ignore[misc, name-defined, unused-ignore]
        restarts = 0
        monitor_interval = 0  # otherwise tqdm starts a thread per class of bars and never ends it

        def update(self, n: float | None = 1) -> bool | None:
            if n is not None and n < 0:  # the bytes so far are discarded
                self.restarts += 1
                logger.warning("download restarted by the server (%d)", self.restarts)
                if self.restarts > MAX_RESTARTS:
                    raise _CutOffError(f"the server broke off {self.restarts} times")
            return super().update(n)  # type: ignore[no-any-return, unused-ignore]

    known = "tqdm_class" in inspect.signature(hf_hub_download).parameters
    return {"tqdm_class": Bar} if known else {}


def _check_listing(repo_id: str, revision: str | None, token: Token) -> None:
    """Fail at once where `hf_hub_download` would retry for half a minute; refuse pickles."""
    from huggingface_hub import HfApi

    info = HfApi(token=token, **_LIBRARY).model_info(repo_id, revision=revision, timeout=TIMEOUT_S)
    names = sorted(file.rfilename for file in info.siblings or [])
    if WEIGHTS_FILE in names or not names:
        return
    if pickles := [name for name in names if name.endswith(_PICKLES)]:
        raise CheckpointError(
            f"{repo_id}: has no {WEIGHTS_FILE}, only {', '.join(pickles)}: reading such a pickle "
            f"can run code. Download it with {CONFIG_FILE} and run "
            f"`tiepoint convert {pickles[0]} FOLDER`, which runs none"
        )
    raise CheckpointError(
        f"{repo_id}: has no {WEIGHTS_FILE}, so it is no checkpoint; it holds {', '.join(names)}"
    )


@contextmanager
def _optional(*, from_cache_only: bool) -> Iterator[None]:
    """Ignore a file that the repository lacks, or that the cache lacks and may not download."""
    from huggingface_hub import errors

    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        offline = isinstance(error.__cause__, errors.OfflineModeIsEnabled)
        if not from_cache_only and not offline:
            raise
    except errors.EntryNotFoundError:
        pass


@contextmanager
def _explained(repo_id: str, revision: str | None, *, writing: bool = False) -> Iterator[None]:
    """Re-raise errors of huggingface_hub and of its HTTP library as `CheckpointError`."""
    from huggingface_hub import errors

    # The base classes of its own error include that of the HTTP library, whichever it uses.
    # hf_xet raises RuntimeError; an id or a token of a wrong form raises ValueError.
    known: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError)
    known += tuple(base for base in errors.HfHubHTTPError.__bases__ if issubclass(base, Exception))
    try:
        yield
    except known as error:
        raise CheckpointError(_explanation(error, repo_id, revision, writing=writing)) from error


def _explanation(error: Exception, repo_id: str, revision: str | None, *, writing: bool) -> str:
    """The cause and the remedy in one line."""
    from huggingface_hub import constants, errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    denied = status in (401, 403)
    if isinstance(error, errors.GatedRepoError):
        where = f"{constants.ENDPOINT}/{repo_id}"
        return f"{repo_id}: is gated; ask for access at {where}, then {_LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo_id}: has no revision {revision!r}; give one of its branches, tags or commits"
    if denied and writing:
        return f"{repo_id}: no permission to write ({status}); pass a token that has it (token=...)"
    if denied:
        return (
            f"{repo_id}: the Hub gives no access ({status}): there is no such repository, it is "
            f"private, or the token is wrong; check the id, or {_LOG_IN}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{repo_id}: no such repository on the Hub, or a private one; if so, {_LOG_IN}"
    if isinstance(error, errors.EntryNotFoundError) and status is not None:
        return f"{repo_id}: a file of the checkpoint is missing ({_first_line(error)})"
    if status is not None:
        return f"{repo_id}: the Hub answers {status} ({_first_line(error)}); try again later"
    return f"{repo_id}: {_no_answer(error, constants.ENDPOINT)}"


def _no_answer(error: Exception, endpoint: str) -> str:
    """The cause and the remedy if the Hub was not asked, not reached, or interrupted."""
    from huggingface_hub import errors

    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
    if cause is None:
        return (
            "not in the local cache, and local_files_only forbids to download it; load it once "
            "with a connection, or give a folder"
        )
    if isinstance(cause, errors.OfflineModeIsEnabled):
        return (
            "not in the local cache, and HF_HUB_OFFLINE forbids to download it; unset it, or "
            "give a folder"
        )
    if isinstance(cause, _CutOffError) or "Consistency check" in str(cause):
        return f"the download broke off ({_first_line(cause)}); no partial file was kept, try again"
    if isinstance(cause, ValueError):
        return _first_line(cause)
    return (
        f"the transfer failed ({type(cause).__name__}: {_first_line(cause)}), and it is not whole "
        f"in the local cache; check the connection to {endpoint}, or give a folder"
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
