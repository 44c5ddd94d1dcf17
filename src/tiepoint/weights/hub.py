"""Checkpoints on the Hugging Face Hub: fetch one into its cache, push a folder.

`huggingface_hub` does the transfer and keeps the cache; it is imported when a Hub id is used, not
before. What it raises is told as a `CheckpointError` that says what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tiepoint._version import __version__
from tiepoint.errors import CheckpointError

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
PREPROCESSOR_FILE = "preprocessor_config.json"
QUANTIZATION_FILE = "quantization.json"
"""A checkpoint has it or not; see `quantization`."""
ROTATION_FILE = "rotation.safetensors"
"""Optional file of a checkpoint; see `rotation`."""

TIMEOUT_S = 10.0
"""For one answer of the Hub; huggingface_hub's own default."""
MAX_RESTARTS = 2
"""A download that begins anew more often than this is given up. huggingface_hub itself never
does: each byte that arrives resets its count of attempts."""

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl")
_LOG_IN = (
    "pass a token that may read it (token=...), set HF_TOKEN, or log in once with `hf auth login`"
)

Token = str | bool | None
"""A token; True for the one of `hf auth login`, False for none, None for that one if there is."""


@dataclass(frozen=True)
class Fetched:
    """A checkpoint in the local cache.

    Attributes:
        folder: Holds config.json, model.safetensors and, if there is one, the preprocessor's.
        revision: The commit it is of, 40 hexadecimal digits, or None if the cache does not say.
    """

    folder: Path
    revision: str | None


def is_id(text: str) -> bool:
    """Whether a text has the form of a Hub id, `org/name`."""
    return _ID.fullmatch(text) is not None


def fetch(
    repo_id: str,
    *,
    revision: str | None = None,
    token: Token = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Fetched:
    """Bring a checkpoint into the cache; what is there already is not loaded again.

    Args:
        repo_id: `org/name`.
        revision: Branch, tag or commit; None takes `main`.
        token: For private and gated repositories.
        cache_dir: None takes huggingface_hub's own (HF_HOME, HF_HUB_CACHE).
        local_files_only: Ask the cache alone.

    Raises:
        CheckpointError: No such repository, revision or file; no permission; no connection and
            not in the cache; a download that breaks off; weights only as a pickle.
    """
    import huggingface_hub as hf

    common: dict[str, Any] = {
        "cache_dir": cache_dir,
        "token": token,
        "local_files_only": local_files_only,
        "library_name": "tiepoint",
        "library_version": __version__,
        **_progress_bar(),
    }

    def cached(name: str, of: str | None) -> Any:
        return hf.try_to_load_from_cache(repo_id, name, cache_dir=cache_dir, revision=of)

    with _explained(repo_id, revision):
        whole = all(isinstance(cached(name, revision), str) for name in (CONFIG_FILE, WEIGHTS_FILE))
        if not whole and not local_files_only:
            _look(repo_id, revision, token)
        config = Path(hf.hf_hub_download(repo_id, CONFIG_FILE, revision=revision, **common))
        commit = config.parent.name  # the other files must be of the same one
        for name in (PREPROCESSOR_FILE, ROTATION_FILE, QUANTIZATION_FILE):
            if cached(name, commit) is None:
                with _optional(local_files_only):
                    hf.hf_hub_download(repo_id, name, revision=commit, **common)
        weights = Path(hf.hf_hub_download(repo_id, WEIGHTS_FILE, revision=commit, **common))
    return Fetched(weights.parent, commit if _COMMIT.fullmatch(commit) else None)


def stated_sha256(path: Path) -> str | None:
    """The SHA-256 under which the Hub's cache holds a file, or None if it does not say.

    The cache links a file to a blob with the hash for its name, where links can be made.
    """
    if not path.is_symlink():
        return None
    blob = path.readlink()
    named = blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name)
    return blob.name if named else None


def push(
    folder: str | Path,
    repo_id: str,
    *,
    token: Token = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload a checkpoint folder to the Hub in one commit; the repository is made if need be.

    Args:
        folder: With `config.json` and `model.safetensors`; `preprocessor_config.json`,
            `rotation.safetensors`, `quantization.json` and `README.md` go along if they are
            there, nothing else does.
            A folder with `preprocessor_config.json` alone adds that to a checkpoint.
        repo_id: `org/name`.
        token: One that may write.
        private: Of a new repository: True or False; None takes the account's default.
        revision: The branch; None takes `main`.
        commit_message: None says that tiepoint uploaded a checkpoint.
        create_pr: Open a pull request in place of a commit.

    Returns:
        The commit's (or pull request's) address.

    Raises:
        CheckpointError: The folder is no checkpoint, no permission, or no connection.
    """
    folder = Path(folder)
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if missing and not (len(missing) == 2 and (folder / PREPROCESSOR_FILE).is_file()):
        raise CheckpointError(f"{folder}: lacks {' and '.join(missing)}; save a checkpoint first")
    if not is_id(repo_id):
        raise CheckpointError(f"repository {repo_id!r}: expected an id of the form org/name")
    import huggingface_hub as hf

    names = (
        CONFIG_FILE, WEIGHTS_FILE, PREPROCESSOR_FILE, ROTATION_FILE, QUANTIZATION_FILE, "README.md"
    )  # fmt: skip
    files = [
        hf.CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name)
        for name in names
        if (folder / name).is_file()
    ]
    api = hf.HfApi(token=token, library_name="tiepoint", library_version=__version__)
    with _explained(repo_id, revision, writing=True):
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.create_commit(
            repo_id,
            files,
            commit_message=commit_message or "Upload a checkpoint with tiepoint",
            revision=revision,
            create_pr=create_pr,
        )
    return commit.pr_url or commit.commit_url


class _CutOffError(OSError):
    """A download that began anew too often."""


@cache
def _progress_bar() -> dict[str, Any]:
    """A progress bar that counts restarts, where hf_hub_download takes one."""
    import inspect

    from huggingface_hub import hf_hub_download, utils

    class Bar(utils.tqdm):  # type: ignore[misc, name-defined, unused-ignore]
        restarts = 0
        monitor_interval = 0  # tqdm starts a thread for each class of bars, and never ends it

        def update(self, n: float | None = 1) -> bool | None:
            if n is not None and n < 0:  # what had arrived is thrown away
                self.restarts += 1
                if self.restarts > MAX_RESTARTS:
                    raise _CutOffError(f"the server broke off {self.restarts} times")
            return super().update(n)  # type: ignore[no-any-return, unused-ignore]

    known = "tqdm_class" in inspect.signature(hf_hub_download).parameters
    return {"tqdm_class": Bar} if known else {}


def _look(repo_id: str, revision: str | None, token: Token) -> None:
    """Raise at once for what `hf_hub_download` would try for half a minute, and for pickles."""
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="tiepoint", library_version=__version__)
    info = api.model_info(repo_id, revision=revision, timeout=TIMEOUT_S)
    names = sorted(file.rfilename for file in info.siblings or [])
    if WEIGHTS_FILE in names or not names:
        return
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        raise CheckpointError(
            f"{repo_id}: has no {WEIGHTS_FILE}, only {', '.join(pickles)}: reading such a pickle "
            f"can run code. Download it with {CONFIG_FILE} and run "
            f"`tiepoint convert {pickles[0]} FOLDER`, which runs none"
        )
    raise CheckpointError(
        f"{repo_id}: has no {WEIGHTS_FILE}, so it is no checkpoint; it holds {', '.join(names)}"
    )


@contextmanager
def _optional(local_files_only: bool) -> Iterator[None]:
    """Pass over a file that the repository does not have, or that the cache alone cannot give."""
    from huggingface_hub import errors

    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        offline = isinstance(error.__cause__, errors.OfflineModeIsEnabled)
        if not local_files_only and not offline:
            raise
    except errors.EntryNotFoundError:
        pass


@contextmanager
def _explained(repo_id: str, revision: str | None, *, writing: bool = False) -> Iterator[None]:
    """Tell what huggingface_hub and the HTTP library below it raise as a CheckpointError."""
    from huggingface_hub import errors

    # The base of its own error is that of the HTTP library, whichever this version stands on.
    # RuntimeError is what hf_xet raises; ValueError, an id or a token of a wrong form.
    known: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError)
    known += tuple(base for base in errors.HfHubHTTPError.__bases__ if issubclass(base, Exception))
    try:
        yield
    except known as error:
        raise CheckpointError(_explanation(error, repo_id, revision, writing=writing)) from error


def _explanation(error: Exception, repo_id: str, revision: str | None, *, writing: bool) -> str:
    """What to say and what to do, in one line."""
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
    """What to say where the Hub was not asked, not reached, or broke off."""
    from huggingface_hub import errors

    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
    if cause is None:
        return (
            "not in the local cache, and only that was asked (local_files_only); load it once "
            "with a connection, or give a folder"
        )
    if isinstance(cause, errors.OfflineModeIsEnabled):
        return (
            "not in the local cache, and HF_HUB_OFFLINE forbids to download it; unset it, or "
            "give a folder"
        )
    if isinstance(cause, _CutOffError) or "Consistency check" in str(cause):
        return f"the download broke off ({_first_line(cause)}); nothing half was kept, try again"
    if isinstance(cause, ValueError):
        return _first_line(cause)
    return (
        f"the transfer failed ({type(cause).__name__}: {_first_line(cause)}), and it is not whole "
        f"in the local cache; check the connection to {endpoint}, or give a folder"
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
