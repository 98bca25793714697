"""Reasons for a failure that lie with the flake's owner: an input that is private, a file that
is locked or not tracked, a newer lock.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from pytest_nixos.errors import EvalError, FlakeError, NixosError
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.log import NixLog
from pytest_nixos.nix.command.metadata import input_by_url, input_location
from pytest_nixos.nix.command.refs import FlakeRef
from pytest_nixos.nix.config.places import SOURCE_ROOT, Places

__all__ = ["Circumstances", "owners_reason"]

Json = Any

_QUOTED = r"['\"](?P<{}>[^'\"\n]+)['\"]"
_UNREACHABLE = re.compile(
    r"(?i)could not read from remote|permission denied \(publickey|host key verification failed|authentication failed"
    r"|could not read (?:username|password)|terminal prompts disabled|repository not found|HTTP error"
    r"|could(?:n't| not) resolve host|unable to download|connection (?:timed out|refused)|failed to connect"
    r"|network is unreachable|timeout was reached"
)
_GIT_SAYS = re.compile(r"(?:fatal|ssh|remote|error|git@\S+|\S+@\S+):|ERROR|Permission|Host key")
_INPUT = re.compile(r"while updating the flake input " + _QUOTED.format("name"))
_FETCHED = (
    re.compile(r"while fetching the input " + _QUOTED.format("url")),
    re.compile(r"of repository " + _QUOTED.format("url")),
    re.compile(r"unable to download " + _QUOTED.format("url")),
)
_FORGE = re.compile(
    r"https://(?:api\.)?(?P<forge>github|gitlab)\.com/(?:repos/)?(?P<place>[^/]+/[^/]+)/"
)
_MISSING = re.compile(
    rf"(?:getting status of|opening file|path) ['\"](?P<path>{SOURCE_ROOT}/[^'\"\n]+)['\"]"
    r":? (?:No such file or directory|does not exist)"
)
_NO_DIRECTORY = re.compile(
    r"(?:getting status of|opening file|cannot read file|path|repository) ['\"](?:file://)?(?P<path>/[^'\"\n]+)['\"]"
    r":? (?:No such file or directory|does not exist|not found)"
)
# From 2.34 on, of a source that lies in a repository on this machine.
_MISSING_IN_GIT = re.compile(
    rf"Path {_QUOTED.format('below')} (?:in the repository|does not exist in Git repository)"
    rf" {_QUOTED.format('repository')}"
)
_SOURCE_FILE = re.compile(SOURCE_ROOT + r"/[^\s'\":]+")
_GIT_CRYPT = b"\0GITCRYPT\0"
_SHOWN_WORDS = 2

# What a lock file may hold, and the release of Nix that began to write it.
_LOCK_SINCE = {
    "lastModified": "2.17",  # of a tarball: the protocol for lockable tarballs
    "rev": "2.17",
    "revCount": "2.17",
    "exportIgnore": "2.20",
    "verifyCommit": "2.20",
    "publicKey": "2.20",
    "publicKeys": "2.20",
    "keytype": "2.20",
    "__final": "2.26",
    "parent": "2.26",
    "lfs": "2.27",
}
_NEWER_LOCK = (
    re.compile(
        r"unsupported (?:\w+ )?input attribute " + _QUOTED.format("attribute")
        + r"(?: for the ['\"]\w+['\"] scheme)?"
    ),
    re.compile(r"input attribute " + _QUOTED.format("attribute") + r" not supported"),
    # A relative path input, as Nix from 2.26 on locks it.
    re.compile(r"(?:lockfile|lock file) contains (?:mutable|unlocked) (?:lock|input)[^\n]*(?P<parent>path)[^\n]*\./"),
    re.compile(r"lock file ['\"][^'\"\n]+['\"] has unsupported version (?P<format>\d+)"),
)  # fmt: skip


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """What an error is told with, beside the words of Nix.

    :param settings: those of the command that failed; commands of a remedy have them too.
    :param metadata: of the flake, as far as it is known.
    :param version: asks what ``nix --version`` says.
    """

    settings: NixSettings = msgspec.field(default_factory=NixSettings)
    metadata: Mapping[str, Json] | None = None
    version: Callable[[], str] = lambda: ""


def owners_reason(
    subject: str, flake: FlakeRef, log: NixLog, around: Circumstances
) -> NixosError | None:
    """Return the error that explains a failure for which the flake's owner has a reason,
    ``None`` if it is another.
    """
    explanations = (
        _newer_lock,
        _input_out_of_reach,
        _input_not_there,
        _locked_by_git_crypt,
        _not_in_source,
    )
    for explain in explanations:
        error = explain(subject, flake, log, around)
        if error is not None:
            return error
    return None


def _newer_lock(
    subject: str, _flake: FlakeRef, log: NixLog, around: Circumstances
) -> NixosError | None:
    text = _text(log)
    found = next(filter(None, (pattern.search(text) for pattern in _NEWER_LOCK)), None)
    if found is None:
        return None
    groups = found.groupdict()
    attribute = groups.get("attribute") or ("parent" if groups.get("parent") else "")
    since = _LOCK_SINCE.get(attribute, "")
    needs = f"needs Nix {since} or later" if since else "is of a later Nix"
    what = f"its {attribute!r}" if attribute else f"its format {groups.get('format')}"
    if attribute and not since and around.metadata is not None:
        return None  # a misspelt attribute of flake.nix, not of a lock that a Nix wrote
    version = around.version() or "this one"
    return FlakeError(
        f"{subject}: flake.lock was written by a newer Nix: {what} {needs}, found {version}",
        remedy=f"put {f'Nix {since} or later' if since else 'a newer Nix'} before this one on PATH; the flake can stay as it is",
        detail=log.whole,
    )


def _input_out_of_reach(
    subject: str, flake: FlakeRef, log: NixLog, around: Circumstances
) -> NixosError | None:
    text = "\n".join([_text(log), *log.warnings])
    if _UNREACHABLE.search(text) is None:
        return None
    whole = log.whole
    name, url = _fetched(whole, around)
    if name is None or url == flake.url:
        return None
    said = [line.strip() for line in log.plain if _GIT_SAYS.match(line)]
    words = "; ".join(dict.fromkeys(said[:_SHOWN_WORDS])) or log.errors[-1].text
    repository = url.partition("?")[0].removeprefix("git+") or "URL"
    host = re.sub(r"^\w+://(?:[^@/]*@)?", "", repository).partition("/")[0].partition(":")[0]
    return FlakeError(
        f"{subject}: the input {name} ({url or 'of an unknown URL'}) cannot be fetched: {words}",
        remedy=f"give it from elsewhere: --nixos-override-input {shlex.quote(name)} path:DIR"
        if repository.startswith("file:")
        else f"give it from elsewhere: --nixos-override-input {shlex.quote(name)} path:DIR;"
        f" or let ssh reach it: ssh-add, until this works: git ls-remote {shlex.quote(repository)};"
        f" or give credentials: --nixos-nix-option access-tokens {host or 'HOST'}=TOKEN, or a line in ~/.netrc",
        detail=whole,
    )


def _input_not_there(
    subject: str, flake: FlakeRef, log: NixLog, around: Circumstances
) -> NixosError | None:
    """Explain an input that is a directory of this machine, or of its owner's, and not there."""
    found = _NO_DIRECTORY.search(_text(log))
    if found is None or re.match(SOURCE_ROOT, found["path"]):
        return None
    name, url = _fetched(log.whole, around)
    if name is None or url == flake.url:
        return None
    given = dict(around.settings.override_inputs).get(name)
    quoted = shlex.quote(name)
    return FlakeError(
        f"{subject}: the input {name} ({url or given or 'of an unknown URL'}) is not there:"
        f" no such file or directory: {re.sub('^/+', '/', found['path'])}",
        remedy=f"correct the path: --nixos-override-input {quoted} path:DIR"
        if given is not None
        else f"give it from where it lies here: --nixos-override-input {quoted} path:DIR",
        detail=log.whole,
    )


def _fetched(whole: str, around: Circumstances) -> tuple[str | None, str]:
    """Return the name and URL of the input that Nix was about, as far as it says so."""
    url = next((m["url"] for p in _FETCHED if (m := p.search(whole)) is not None), "")
    names = [m["name"] for m in _INPUT.finditer(whole)]
    name = max(names, key=len) if names else input_by_url(around.metadata or {}, _by_forge(url))
    return name, url


def _locked_by_git_crypt(
    subject: str, flake: FlakeRef, log: NixLog, around: Circumstances
) -> NixosError | None:
    places = Places.of(around.metadata)
    for path in _named_files(log, places):
        shown = "GITCRYPT" in "".join(error.whole for error in log.errors)
        if not (_begins_with(Path(path), _GIT_CRYPT) or (shown and not Path(path).exists())):
            continue
        name, below = places.input_of(path) or ("", places.shorten(path))
        if name:
            remedy = (
                f"unlock a checkout of that input (git-crypt unlock), and give it:"
                f" --nixos-override-input {shlex.quote(name)} path:DIR"
            )
        else:
            directory = local_directory(flake)
            where = shlex.quote(str(directory)) if directory is not None else "CHECKOUT"
            remedy = (
                f"unlock it: cd {where} && git-crypt unlock; then name the tree, not its commits:"
                f" --nixos-flake path:{where}{subject.removeprefix(str(flake))}"
            )
        return EvalError(
            f"{subject}: {'/'.join(filter(None, (name, below)))} is locked by git-crypt",
            remedy=remedy,
            detail=log.whole,
        )
    return None


def _not_in_source(
    subject: str, flake: FlakeRef, log: NixLog, around: Circumstances
) -> NixosError | None:
    path = _missing_path(_text(log))
    if path is None or re.fullmatch(f"{SOURCE_ROOT}/flake.nix", path):
        return None
    if around.metadata is None and Path(path).name == "flake.nix":
        return None
    known = Places.of(around.metadata).input_of(path)
    name, below = known if known is not None else ("", re.sub(f"^{SOURCE_ROOT}/", "", path))
    if name:
        return _not_in_input(subject, name, below, log, around)
    directory = local_directory(flake)
    if directory is not None and (directory / below).exists():
        return EvalError(
            f"{subject}: the flake's source has no {below}: it is there, and Git does not track it",
            remedy=f"git -C {shlex.quote(str(directory))} add {shlex.quote(below)}",
            detail=log.whole,
        )
    return EvalError(
        f"{subject}: the flake's source has no {below}",
        remedy="check the path; in a Git tree Nix sees tracked files only, so `git add` a new file",
        detail=log.whole,
    )


def _missing_path(text: str) -> str | None:
    """Return the path that a source does not have, in the store or in a repository."""
    if found := _MISSING.search(text):
        return found["path"]
    if found := _MISSING_IN_GIT.search(text):
        return str(Path(found["repository"], found["below"]))
    return None


def _not_in_input(
    subject: str, name: str, below: str, log: NixLog, around: Circumstances
) -> NixosError:
    directory = input_location(around.metadata or {}, name)
    there = directory is not None and (directory / below).exists()
    if there:
        place = shlex.quote(f"path:{directory}")
        remedy = (
            f"git -C {shlex.quote(str(directory))} add {shlex.quote(below)}, commit it, and update the lock;"
            f" or test with the tree as it is: --nixos-override-input {shlex.quote(name)} {place}"
        )
    else:
        remedy = f"update the input, or give one that has the file: --nixos-override-input {shlex.quote(name)} path:DIR"
    return EvalError(
        f"{subject}: the source of the input {name} has no {below}"
        + (": it is there, and not in the commit that is locked" if there else ""),
        remedy=remedy,
        detail=log.whole,
    )


def local_directory(flake: FlakeRef) -> Path | None:
    """Return the root of the tree that a flake on this machine is taken from, ``None`` for a
    flake of elsewhere.
    """
    text = flake.url.partition("?")[0].removeprefix("git+").removeprefix("path:")
    text = text.removeprefix("file://") if text.startswith("file:///") else text
    if not text.startswith("/"):
        return None
    directory = Path(text)
    roots = (p for p in (directory, *directory.parents) if (p / ".git").exists())
    return directory if flake.url.startswith("path:") else next(roots, directory)


def _text(log: NixLog) -> str:
    return "\n".join([*(error.text for error in log.errors), *log.plain])


def _named_files(log: NixLog, places: Places) -> Iterator[str]:
    """Yield the files in sources that the errors point at or name."""
    for error in log.errors:
        found = _SOURCE_FILE.match(error.file)
        pointed = found[0] if found is not None else error.file.partition(":")[0]
        if found is not None or places.input_of(pointed) is not None:
            yield pointed
        yield from _SOURCE_FILE.findall(error.text)


def _begins_with(path: Path, start: bytes) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(start)) == start
    except OSError:
        return False


def _by_forge(url: str) -> str:
    """Return the flake ref of a forge's tarball, any other URL as it is."""
    found = _FORGE.match(url)
    return f"{found['forge']}:{found['place']}" if found is not None else url
