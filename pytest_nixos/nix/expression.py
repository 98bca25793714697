"""The Nix expressions that are applied to a flake's ``nixosConfigurations``, assembled from
``nix/*.nix``.

They travel as text in ``nix eval --apply``: that works in pure mode and with ``--override-input``,
and writes no file. Data goes in as JSON text, so no value of a user is ever parsed as Nix.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources

import msgspec

from pytest_nixos.errors import SettingsError
from pytest_nixos.nix.command.refs import nix_quote
from pytest_nixos.nix.config.host_facts import host_facts

__all__ = [
    "Instrumentation",
    "attribute_names",
    "attribute_path",
    "dev_shells_expression",
    "evaluation_expression",
    "expression_sources",
    "file_hosts_expression",
    "generation_expression",
    "home_hosts_expression",
    "image_expression",
    "names_expression",
    "option_names",
    "test_nodes_expression",
]

_PLAIN_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_'-]*")
# A string of several lines, which stays as it is (none holds another); a line that is a comment or empty; what a line is indented by.
_STRING_OR_NOTHING = re.compile(r"(''(?:''['$\\]|(?!'')[\s\S])*'')|^ *(?:#.*)?\n|^ +", re.MULTILINE)
_MAX_ARGUMENT_BYTES = 128 * 1024 - 1  # MAX_ARG_STRLEN, execve(2)


class Instrumentation(msgspec.Struct, frozen=True, kw_only=True):
    """What a VM gets beside the host's own config.

    :param channel_script: bash program that serves the root command channel inside the guest.
    :param memory_mib: overrides what the host declares, in MiB.
    :param cores: overrides what the host declares.
    :param restrict_network: keep the guest from reaching anything but the machine that runs it.
    :param stand_in: a stand-in for the internet answers; the guest asks it for the time as its host
        does.
    :param snapshot: make the VM one whose state can be saved, where the host allows it.
    :param secrets: ``test`` for encrypted files of our making in place of the host's; ``age`` or
        ``ssh`` for the host's own, with a key of the user's of that kind; ``none`` for neither.
    :param plain_files: the user gives files that the host's config names.
    :param own_disks: a VM has the disks that its host declares, in place of those of build-vm.
    :param tunnels: by attribute name of a host: the keys of its WireGuard peers, as
        ``expressions/tunnels.nix`` wants them.
    :param salt: sets hardware addresses that are made apart from those of another host; the host's
        name unless given.
    """

    channel_script: str
    memory_mib: int | None = None
    cores: int | None = None
    restrict_network: bool = True
    stand_in: bool = False
    snapshot: bool = False
    secrets: str = "test"
    plain_files: bool = False
    own_disks: bool = False
    tunnels: Mapping[str, Mapping[str, object]] = msgspec.field(default_factory=dict)
    salt: str = ""


def evaluation_expression(
    attr: str,
    *,
    backend: str,
    instrumentation: Instrumentation,
    options: Sequence[Sequence[str]],
    where: Sequence[str] = (),
    skipped_facts: Sequence[str] = (),
    refuse_image: bool = False,
) -> str:
    """Return the function that turns ``nixosConfigurations`` into one host's document.

    :param attr: name of the host.
    :param backend: ``auto``, ``vm``, ``member`` (of a cluster: a VM with the host's own cards) or
        ``container``.
    :param options: option paths as attribute names, see :func:`option_names`.
    :param where: option paths whose definitions are told; one that ends in ``.*`` stands for the
        members of its value.
    :param skipped_facts: names of :func:`host_facts` to leave out because they break the
        evaluation.
    :param refuse_image: answer what the host is where it is no machine that stays, such as an ISO
        image, and evaluate no further.
    :raises SettingsError: if the text is longer than an argument may be.
    """
    request = _request(attr, backend, instrumentation)
    request |= {
        "options": [list(names) for names in options],
        "facts": {name: option_names(fact.path) for name, fact in host_facts().items()},
        "where": [_asked_where(path) for path in where],
        "skippedFacts": list(skipped_facts),
        "refuseImage": refuse_image,
    }
    return _expression("host-config.nix", request, "{ }", needs="facts where cardsOf")


def generation_expression(
    attr: str, *, backend: str, instrumentation: Instrumentation, delta: str
) -> str:
    """Return the function that instantiates a machine's toplevel with the module text `delta`."""
    request = _request(attr, backend, instrumentation)
    return _expression("generation.nix", request, delta, needs="")


def dev_shells_expression(request: Mapping[str, str]) -> str:
    """Return the function that turns ``devShells`` into a document.

    :param request: ``system`` and ``shell`` for one shell; empty for the names of all.
    """
    data = nix_quote(json.dumps(dict(request)))
    return _small_expression("dev-shells.nix", f"request = builtins.fromJSON {data};")


def names_expression() -> str:
    """Return the function that turns ``nixosConfigurations`` into names and addresses of all
    hosts.
    """
    return _small_expression("hosts.nix", "")


def image_expression(host: str) -> str:
    """Return the function that turns ``nixosConfigurations`` into the derivation of a host's
    container template.
    """
    return _small_expression("lxc-image.nix", f"name = {nix_quote(host)};")


def file_hosts_expression(
    file: str, *, lone: str, name: str, expression: str, as_kind: bool = False
) -> str:
    """Return the function that applies `expression`, which is one of ``nixosConfigurations``, to
    the hosts of a Nix file.

    :param lone: name of the host where the file is one.
    :param name: of the host that is asked for, an attribute path; ``""`` for all.
    :param as_kind: apply it to what the file holds: ``set``, ``host``, ``module``.
    :raises SettingsError: if the text is longer than an argument may be.
    """
    request = {
        "file": file,
        "lone": lone,
        "name": name,
        "asKind": as_kind,
        "wanted": list(attribute_names(name)) if name and name != lone else [],
    }
    source = expression_sources()["file-hosts.nix"]
    data = nix_quote(json.dumps(request))
    return _fitting(
        f"value: (\n{expression}\n) ((\n{source}\n)"
        f" {{ request = builtins.fromJSON {data}; }} value)"
    )


def test_nodes_expression(expression: str) -> str:
    """Return the function that applies `expression`, which is one of ``nixosConfigurations``, to the
    nodes of a NixOS test.

    :raises SettingsError: if the text is longer than an argument may be.
    """
    sources = expression_sources()
    return _fitting(
        f"test: (\n{expression}\n) ((\n{sources['test-nodes.nix']}\n)"
        f" {{ nodeAsHost = (\n{sources['test-node.nix']}\n); }} test)"
    )


def home_hosts_expression(expression: str) -> str:
    """Return the function that applies `expression`, which is one of ``nixosConfigurations``, to a
    flake's ``homeConfigurations``.

    :raises SettingsError: if the text is longer than an argument may be.
    """
    source = expression_sources()["home-hosts.nix"]
    return _fitting(f"homes: (\n{expression}\n) ((\n{source}\n) homes)")


def option_names(path: str) -> tuple[str, ...]:
    """Split an option path into attribute names: ``boot.kernel.sysctl."vm.swappiness"``.

    :raises SettingsError: if a quote is not closed or a name is empty.
    """
    return _names(
        path,
        "option path",
        'write it as in a module: services.openssh.enable, boot.kernel.sysctl."vm.swappiness"',
    )


def attribute_names(path: str) -> tuple[str, ...]:
    """Split what ``-A`` names into attribute names: ``machines."web.lab"``.

    :raises SettingsError: if it is empty, a quote is not closed or a name is empty.
    """
    remedy = "write it as for nix-build -A: web, machines.web, 'machines.\"web.lab\"'"
    if not path:
        raise SettingsError("-A: the value is empty", remedy=remedy)
    return _names(path, "-A", remedy)


def attribute_path(name: str) -> str:
    """Write one attribute name as ``-A`` takes it, in quotes where it needs them."""
    return name if _PLAIN_NAME.fullmatch(name) else f'"{name}"'


def _names(path: str, what: str, remedy: str) -> tuple[str, ...]:
    names: list[str] = []
    rest = path
    while True:
        if rest.startswith('"'):
            name, closed, rest = rest[1:].partition('"')
        else:
            end = rest.find(".")
            name, closed, rest = (rest, "-", "") if end < 0 else (rest[:end], "-", rest[end:])
        names.append(name)
        if not name or not closed or (rest and not rest.startswith(".")) or '"' in name:
            raise SettingsError(
                f"{what} {path!r}: {'a quote is not closed' if not closed else 'an empty or odd name'}",
                remedy=remedy,
            )
        if not rest:
            return tuple(names)
        rest = rest[1:]


def expression_sources() -> Mapping[str, str]:
    """Return the text of every ``.nix`` file by name, without comments, empty lines and
    indentation: an argument has room for 128 KiB.
    """
    folder = resources.files("pytest_nixos.nix") / "expressions"
    files = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return {
        file.name: _STRING_OR_NOTHING.sub(lambda found: found[1] or "", file.read_text())
        for file in files
        if file.name.endswith(".nix")
    }


def _asked_where(path: str) -> dict[str, object]:
    whole = path.removesuffix(".*")
    names: dict[str, object] = {"names": list(option_names(whole))}
    return names | ({"members": True} if whole != path else {})


def _small_expression(main: str, arguments: str) -> str:
    source = expression_sources()
    return (
        f"let safe = (\n{source['safe.nix']}\n); in (\n{source[main]}\n)"
        f" {{ inherit safe; {arguments} }}"
    )


def _request(attr: str, backend: str, instrumentation: Instrumentation) -> dict[str, object]:
    return {
        "host": attr,
        "salt": instrumentation.salt or attr,
        "backend": backend,
        "snapshot": instrumentation.snapshot,
        "standIn": instrumentation.stand_in,
        "secrets": {
            "mode": instrumentation.secrets,
            "files": instrumentation.plain_files or attr in instrumentation.tunnels,
        },
        "tunnels": instrumentation.tunnels.get(attr),
        "ownDisks": instrumentation.own_disks,
        "instrumentation": {
            "channelScript": instrumentation.channel_script,
            "memoryMiB": instrumentation.memory_mib,
            "cores": instrumentation.cores,
            "restrictNetwork": instrumentation.restrict_network,
        },
    }


def _expression(main: str, request: Mapping[str, object], delta: str, *, needs: str) -> str:
    source = expression_sources()
    text = f"""let
  request = builtins.fromJSON {nix_quote(json.dumps(request))};
  safe = (
{source["safe.nix"]}
  );
  tunnels = (
{source["tunnels.nix"]}
  ) {{ inherit safe; wanted = request.tunnels; }};
  facts = (
{source["facts.nix"]}
  ) {{ inherit safe; paths = request.facts; tunnelsOf = tunnels.of; }};
  instrumentation = variant: (
{source["instrumentation.nix"]}
  ) (request.instrumentation // variant);
  where = (
{source["where.nix"]}
  ) {{ inherit safe; }};
  delta = (
{delta}
  );
  saving = (
{source["store-image.nix"]}
  ) {{ inherit safe; wanted = request.snapshot; }};
  testSecrets = (
{source["test-secrets.nix"]}
  ) {{ inherit safe; wanted = request.secrets; }};
  cardsOf = (
{source["cards.nix"]}
  ) {{ inherit safe; salt = request.salt; }};
  declaredDisks = (
{source["declared-disks.nix"]}
  ) {{ inherit safe; wanted = request.ownDisks; }};
  machineOf = (
{source["machine.nix"]}
  ) {{
    inherit safe instrumentation delta saving testSecrets cardsOf declaredDisks tunnels;
    inherit (request) backend standIn ownDisks;
  }};
  withSpecialisation = (
{source["specialisation.nix"]}
  ) {{ inherit safe; name = request.host; }};
in hosts: (
{source[main]}
) {{ inherit safe machineOf request {needs}; }} (withSpecialisation hosts)
"""
    return _fitting(text)


def _fitting(text: str) -> str:
    """Return `text` where one argument can hold it."""
    if len(text.encode()) > _MAX_ARGUMENT_BYTES:
        raise SettingsError(
            f"the expression for Nix has {len(text.encode())} bytes, more than the {_MAX_ARGUMENT_BYTES}"
            " that one argument may have",
            remedy="ask for fewer options (choose fewer suites or standards), or make the delta shorter",
        )
    return text
