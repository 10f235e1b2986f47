"""Exports in repositories of the Hugging Face hub.

This project. An address is hf://USER/NAME, or hf://USER/NAME@REVISION for a branch, a tag or a commit. The config.json
of an upload also holds the SHA-256 of each other file but the model card, which may be edited on the hub. Downloads are
compared with these checksums. The package of the extra `hub` finds the user's token by itself.
"""

import contextlib
import fnmatch
import functools
import hashlib
import importlib.util
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lts.utils.errors import FormatError, UserError, first_line
from lts.utils.json_files import read_json
from lts.utils.text import warn

PREFIX = "hf://"
NAME = r"[\w-][\w.-]*"
ADDRESS = re.compile(rf"hf://({NAME}/{NAME})(?:@([\w./-]+))?", re.ASCII)
CHECKSUMS = "sha256"  # entry of config.json: digests by path
CONFIG = "config.json"
MODEL = "saved_model.pb"
UNCHECKED = (CONFIG, "README.md")  # files without a checksum
LOGIN = "Log in with `hf auth login`"


class HubError(UserError):
    """The hub cannot be reached, refuses, or has no such export."""


class AddressError(UserError):
    """Text that names no repository of the hub."""

    exit_status = 2


def is_address(path: str | os.PathLike) -> bool:
    """Return whether a path is the address of a repository."""
    return os.fspath(path).startswith(PREFIX)


def parse(address: str) -> tuple[str, str | None]:
    """Return the repository of an address and its revision or None.

    Raises:
      AddressError: it names no repository.
    """
    parts = ADDRESS.fullmatch(address)
    if parts is None:
        raise AddressError(
            f"a repository of the Hugging Face hub is hf://USER/NAME or hf://USER/NAME@REVISION. Received: {address!r}"
        )
    return parts[1], parts[2]


@functools.cache
def download(address: str, names: Sequence[str]) -> pathlib.Path:
    """Return the folder of a downloaded export.

    Files that were downloaded before are kept in the cache of the package `huggingface_hub`, and are used when the hub
    cannot be reached.

    Args:
      address: hf://USER/NAME, with @REVISION or without.
      names: patterns of the files of an export; no others are downloaded.

    Raises:
      AddressError, FormatError: a wrong address, or the package is not installed.
      HubError: no network, no such repository, no permission, no export, or a file that differs from its checksum.
    """
    repo, revision = parse(address)
    with _reporting(address, writing=False) as package:
        folder = pathlib.Path(package.snapshot_download(repo, revision=revision, allow_patterns=list(names)))
    for name in (MODEL, CONFIG):
        if not (folder / name).exists():
            raise HubError(
                f"{address} holds no exported model: it has no {name}. Upload one with lts.bin.share_features."
            )
    expected = read_json(folder / CONFIG, {f"{CHECKSUMS}?": {str: str}}).get(CHECKSUMS)
    if expected is None:
        warn(f"{address} holds no checksums, because it was not uploaded by share_features: its files are not checked.")
        return folder
    found = checksums(folder, names)
    expected = {name: digest for name, digest in expected.items() if matches(name, names)}
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if differing:
        raise HubError(
            f"{address} differs from what was uploaded. Received: {differing[0]} with another checksum. Upload the "
            f"export again; if it was changed on the way, remove {folder.parents[1]} and try again."
        )
    return folder


def checksums(folder: pathlib.Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of the files of an export by path, without those that have no checksum."""
    digests = {}
    for name in exported_files(folder, names):
        if name not in UNCHECKED:
            with (folder / name).open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def exported_files(folder: pathlib.Path, names: Iterable[str]) -> list[str]:
    """Return the paths of the files in a folder that an export has, sorted."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if matches(path, names))


def matches(path: str, names: Iterable[str]) -> bool:
    """Return whether a path is that of a file of an export."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in names)


def upload(
    repo: str, folder: pathlib.Path, names: Sequence[str], contents: dict[str, bytes], private: bool = False
) -> str:
    """Write an export to a repository, as one commit.

    Files of an earlier export that the new one does not have are deleted. Other files of the repository stay.

    Args:
      repo: USER/NAME; created if there is none.
      folder: of the export.
      names: patterns of the files of an export; no others are uploaded.
      contents: file contents to upload instead of the folder's.
      private: whether a new repository is private.

    Returns:
      The address of the commit.

    Raises:
      AddressError, FormatError: as for `download`.
      HubError: no network, no permission, or the repository holds another model.
    """
    address = f"{PREFIX}{repo}"
    parse(address)
    with _reporting(address, writing=True) as package:
        api = package.HfApi()
        api.create_repo(repo, private=private or None, exist_ok=True)  # None: as the user's settings say
        existing = api.list_repo_files(repo)
        if CONFIG in existing and MODEL not in existing:
            raise HubError(
                f"{address} holds another model: it has no {MODEL}. Received: repo={repo}. Give another --repo."
            )
        paths = sorted({*exported_files(folder, names), *contents})
        operations: list[Any] = []
        for path in paths:
            source = contents.get(path, str(folder / path))
            operations.append(package.CommitOperationAdd(path_in_repo=path, path_or_fileobj=source))
        for path in existing:
            if matches(path, names) and path not in paths:
                operations.append(package.CommitOperationDelete(path_in_repo=path))
        commit = api.create_commit(repo, operations, commit_message="Upload an export of lts")
    return f"{address}@{commit.oid}"


@contextlib.contextmanager
def _reporting(address: str, writing: bool) -> Iterator[Any]:
    """Give the package, and turn its errors into one line.

    Raises:
      FormatError: the package is not installed.
      HubError: an error of the hub or of the network.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise FormatError(f"{address} needs the package huggingface_hub: pip install 'lts[hub]'")
    import huggingface_hub as package
    from huggingface_hub import errors

    try:
        yield package
    except errors.HFValidationError as error:
        raise AddressError(f"{first_line(error)} Received: {address}") from None
    except UserError:
        raise
    # The last is the base of the errors of its HTTP library.
    except (OSError, errors.HTTPError) as error:  # pyright: ignore[reportPrivateImportUsage]
        # What was missing in the cache tells nothing; its cause does.
        cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
        raise HubError(f"{_complaint(cause, errors, writing)} Received: {address}") from None
    # An answer that is refused or cannot be read, such as front matter with a licence that the hub does not know.
    except ValueError as error:
        raise HubError(f"the hub refused: {' '.join(str(error).split())} Received: {address}") from None


def _complaint(error: BaseException, errors: Any, writing: bool) -> str:
    """Return what is wrong and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision. Give another one after @."
    if isinstance(error, errors.GatedRepoError):
        return f"the repository asks its readers to be accepted on its page. Do that, and then: {LOGIN}."
    if writing and status in (401, 403):
        return (
            f"the hub does not permit writing there. {LOGIN}, with a token that may write, and give your name as USER."
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        return f"there is no such repository, or it is private. Check the name. {LOGIN} for a private one."
    if status in (401, 403):
        return f"the hub does not permit reading. {LOGIN}."
    if status is not None:
        return f"the hub answered with status {status}. Try again later."
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}."
    return "the Hugging Face hub cannot be reached. Check the network, HF_HUB_OFFLINE and HF_ENDPOINT."
