"""Test keys for WireGuard between members of a cluster: made with the other secrets of each member,
never the user's.

A member's private key lies where its host's config looks for it, as the test value of that secret
or as a plain file; its peers are told the public half by an option's `apply`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_nixos.machine.cluster.owners import End, Link, Owners
from pytest_nixos.machine.cluster.plan import PlannedNetwork, addresses_by_host
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.tunnels import Address, TunnelPeer, public_key_of
from pytest_nixos.test_secrets.archive import TestSecrets
from pytest_nixos.test_secrets.given import GivenSecret
from pytest_nixos.test_secrets.kind import Kind
from pytest_nixos.test_secrets.values import SecretError

__all__ = ["TunnelKeys", "make_keys", "notes"]

#: Where keys lie that the host's config holds itself, or has in the store.
_DIRECTORY = "/run/pytest-nixos-wireguard"
_STORE = "/nix/store/"

#: Makes the secrets of a member, these plain files among them.
MakeSecrets = Callable[[str, Sequence[GivenSecret]], TestSecrets]


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelKeys:
    """What the members of a cluster get.

    :param secrets: of each member that has a tunnel to another.
    :param tables: by member, what ``expressions/tunnels.nix`` wants.
    """

    secrets: Mapping[str, TestSecrets] = field(repr=False)
    tables: Mapping[str, Mapping[str, Any]]


def make_keys(
    owners: Owners,
    networks: Sequence[PlannedNetwork],
    hosts: Mapping[str, HostConfig],
    make_secrets: MakeSecrets,
) -> TunnelKeys:
    """Make keys for all tunnels between members.

    :raises SecretError: if the value of a secret that a tunnel's key comes from is no key.
    """
    members = dict.fromkeys(link.end.host for link in owners.links)
    ends = list(dict.fromkeys(link.end for link in owners.links))
    secrets = {
        name: make_secrets(
            name,
            [
                GivenSecret(host=hosts[name].name, name=path, kind=kind)
                for path, kind in _plain_files([e for e in ends if e.host == name], hosts[name])
            ],
        )
        for name in members
    }
    _share(owners.links, secrets)
    public = {end: _public(end, secrets[end.host]) for end in ends}
    return TunnelKeys(
        secrets=secrets,
        tables={
            name: _table([x for x in owners.links if x.end.host == name], public, networks)
            for name in members
        },
    )


def notes(owners: Owners, addresses: Mapping[str, frozenset[Address]]) -> Iterator[str]:
    """Yield what the user has to know of the peers of a cluster."""
    for stranger in owners.strangers:
        yield stranger.told
    for link in owners.links:
        endpoint = link.peer.endpoint
        if endpoint is None or endpoint.address is None:
            continue
        if endpoint.address not in addresses[link.other.host]:
            yield (
                f"{link.end.name} looks for {link.other.name} at {endpoint.address}, which is no"
                f" address of {link.other.host} here: it waits for the other to begin"
            )


def _key_path(end: End) -> str:
    declared = end.tunnel.key_file
    if declared and not declared.startswith(_STORE):
        return declared
    return f"{_DIRECTORY}/{end.tunnel.name}.key"


def _preshared_path(end: End, peer: TunnelPeer) -> str:
    """Return where a peer's preshared key lies, ``""`` where none is declared."""
    declared = peer.preshared_file
    if declared and not declared.startswith(_STORE):
        return declared
    if not declared and not peer.has_inline_preshared:
        return ""
    digest = hashlib.sha256(peer.public_key.encode()).hexdigest()[:16]
    return f"{_DIRECTORY}/{end.tunnel.name}-{digest}.psk"


def _plain_files(ends: Sequence[End], host: HostConfig) -> Iterator[tuple[str, Kind]]:
    """Yield the files of a member's tunnels that no declared secret makes."""
    secret = {entry.path for entry in host.secrets.secrets}
    for end in ends:
        files = [(_key_path(end), Kind.WIREGUARD_KEY)]
        files += [
            (_preshared_path(end, peer), Kind.WIREGUARD_PRESHARED_KEY) for peer in end.tunnel.peers
        ]
        for path, kind in files:
            if path and path not in secret:
                yield path, kind


def _public(end: End, secrets: TestSecrets) -> str:
    path = _key_path(end)
    text = secrets.at(path)
    found = None if text is None else public_key_of(text)
    if found is None:
        raise SecretError(
            f"{end.host}: the value of {path}, from which {end.tunnel.name} takes its private key, is no"
            " key of WireGuard",
            remedy="let one be made: --nixos-secret NAME=kind:wireguard-key, or give a file that"
            " `wg genkey` wrote",
        )
    return found


def _share(links: Sequence[Link], secrets: dict[str, TestSecrets]) -> None:
    """Give both ends of a tunnel the same preshared key: what the user gave, else that of one."""
    for link in links:
        back = next((x for x in links if (x.end, x.other) == (link.other, link.end)), None)
        if back is None:
            continue
        ours, theirs = _preshared_path(link.end, link.peer), _preshared_path(back.end, back.peer)
        if not ours or not theirs:
            continue
        mine, other = secrets[link.end.host], secrets[back.end.host]
        text = mine.at(ours)
        # The first of the two decides, unless only the other one's is the user's.
        is_first = links.index(link) < links.index(back)
        decides = mine.is_given(ours) or (is_first and not other.is_given(theirs))
        if decides and text is not None and not other.is_given(theirs) and other.at(theirs):
            secrets[back.end.host] = other.with_text(theirs, text)


def _table(
    links: Sequence[Link], public: Mapping[End, str], networks: Sequence[PlannedNetwork]
) -> Mapping[str, Any]:
    interfaces: dict[str, dict[str, Any]] = {}
    hosts: dict[str, list[str]] = {}
    for link in links:
        end, peer = link.end, link.peer
        path, preshared = _key_path(end), _preshared_path(end, peer)
        interface = interfaces.setdefault(
            end.tunnel.name,
            {"file": path if path != end.tunnel.key_file else None, "peers": {}},
        )
        interface["peers"][peer.public_key] = {
            "key": public[link.other],
            "preshared": preshared if preshared not in ("", peer.preshared_file) else None,
        }
        endpoint = peer.endpoint
        if endpoint is not None and endpoint.address is None and not peer.found:
            address = str(_address(link, networks))
            names = hosts.setdefault(address, [])
            names.extend({endpoint.host} - set(names))
    trees = dict.fromkeys(tree for link in links for tree in link.end.tunnel.trees)
    return {"trees": list(trees), "interfaces": interfaces, "hosts": hosts}


def _address(link: Link, networks: Sequence[PlannedNetwork]) -> Address:
    """Return where a member finds the other: on a network that both are on, where there is one."""
    for network in networks:
        places = {place.host: place for place in network.places}
        if {link.end.host, link.other.host} <= places.keys():
            return places[link.other.host].address.ip
    return addresses_by_host(networks)[link.other.host]
