"""Test keys for tunnels between members: where each lies, and what the other side is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from pytest_nixos.machine.cluster.owners import Owners, find_owners, member_addresses
from pytest_nixos.machine.cluster.plan import plan_networks
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.secrets import Secret, SecretModule, Secrets, SecretUse
from pytest_nixos.nix.config.tunnels import public_key_of
from pytest_nixos.plugin.machines.tunnels import TunnelKeys, make_keys, notes
from pytest_nixos.test_secrets.archive import TestSecrets, make_secrets
from pytest_nixos.test_secrets.given import GivenSecret
from pytest_nixos.test_secrets.values import SecretError
from tests.unit.machine.cluster.test_owners import member, pair, peer, tunnel

OF_A, OF_B = peer("B", "10.1.0.2/32"), peer("A", "10.1.0.1/32")
NETWORKD = "systemd.network.netdevs"


def secret_of(host: HostConfig, path: str, kind: str = "wireguard-key") -> HostConfig:
    """Return the host with the file at a path as a secret of agenix."""
    entry = Secret(name=f"of-{path.rpartition('/')[2]}", module=SecretModule.AGE, path=path)
    use = SecretUse(option="x", path=path, kind=kind)
    have = host.secrets
    secrets = Secrets(secrets=(*have.secrets, entry), uses=(*have.uses, use))
    return replace(host, secrets=secrets)


def keys(
    *hosts: HostConfig, given: Sequence[GivenSecret] = (), offered: dict[str, bytes] | None = None
) -> tuple[TunnelKeys, dict[str, HostConfig], Owners]:
    named = {each.name: each for each in hosts}
    networks = plan_networks(named)
    owners = find_owners(named, member_addresses(named, networks))

    def make(name: str, more: Sequence[GivenSecret]) -> TestSecrets:
        mine = offered if name == "b" else None
        return make_secrets(named[name], given=(*given, *more), offered=mine)

    return make_keys(owners, networks, named, make), named, owners


def of(found: TunnelKeys, host: str, name: str = "wg0") -> Any:
    return found.tables[host]["interfaces"][name]


def test_each_is_told_the_public_half_of_the_others_test_key() -> None:
    found, _, _ = keys(*pair(OF_A, OF_B))
    assert found.tables["a"]["trees"] == ["networking.wireguard.interfaces"]
    assert of(found, "a")["file"] is None  # where the config looks for it
    private = {name: found.secrets[name].at("/run/wg0.key") for name in "ab"}
    assert private["a"] != private["b"]
    assert of(found, "a")["peers"] == {
        "B": {"key": public_key_of(private["b"] or ""), "preshared": None}
    }
    assert of(found, "b")["peers"]["A"]["key"] == public_key_of(private["a"] or "")
    assert all(secrets.keepable for secrets in found.secrets.values())
    assert str(private["a"]) not in repr(found)


def test_private_key_that_is_a_declared_secret_has_its_test_value() -> None:
    a, b = pair(OF_A, OF_B)
    found, _, _ = keys(secret_of(a, "/run/wg0.key"), b)
    assert found.secrets["a"].files == {}
    (text,) = found.secrets["a"].texts_of(found.secrets["a"].secrets[-1])
    assert of(found, "b")["peers"]["A"]["key"] == public_key_of(text)


@pytest.mark.parametrize(
    "more",
    [{"key_file": "", "has_inline_key": True}, {"key_file": "/nix/store/x-source/wg0.key"}],
)
def test_private_key_of_the_user_is_replaced_by_a_file(more: dict[str, Any]) -> None:
    found, _, _ = keys(*pair(OF_A, OF_B, **more))
    path = of(found, "b")["file"]
    assert path == "/run/pytest-nixos-wireguard/wg0.key"
    assert of(found, "a")["peers"]["B"]["key"] == public_key_of(found.secrets["b"].at(path) or "")


def test_networkd_reads_its_files() -> None:
    found, _, _ = keys(*pair(OF_A, OF_B, tree=NETWORKD, trees=(NETWORKD,)))
    assert {owner for owner, _ in found.secrets["b"].files.values()} == {"systemd-network"}
    assert {owner for owner, _ in found.secrets["a"].files.values()} == {"-"}


def test_preshared_key_is_the_same_on_both_sides() -> None:
    of_a = replace(OF_A, has_inline_preshared=True)
    of_b = replace(OF_B, preshared_file="/etc/psk")
    a, b = pair(of_a, of_b)
    found, _, _ = keys(a, secret_of(b, "/etc/psk", "wireguard-preshared-key"))
    path = of(found, "a")["peers"]["B"]["preshared"]
    assert path.startswith("/run/pytest-nixos-wireguard/wg0-")
    assert found.secrets["a"].at(path) == found.secrets["b"].at("/etc/psk")
    assert of(found, "b")["peers"]["A"]["preshared"] is None

    lone, _, _ = keys(*pair(of_a, OF_B))
    assert of(lone, "b")["peers"]["A"]["preshared"] is None


def test_value_that_the_user_gives_counts() -> None:
    own = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
    of_a, of_b = (replace(each, preshared_file="/etc/psk") for each in (OF_A, OF_B))
    offered = {"/run/wg0.key": f"{own}\n".encode(), "/etc/psk": b"the user's"}
    found, _, _ = keys(*pair(of_a, of_b), offered=offered)
    assert of(found, "a")["peers"]["B"]["key"] == public_key_of(own)
    assert found.secrets["a"].at("/etc/psk") == "the user's"


def test_value_that_is_no_key_is_refused() -> None:
    with pytest.raises(SecretError, match=r"b: the value of /run/wg0\.key") as err:
        keys(*pair(OF_A, OF_B), offered={"/run/wg0.key": b"hunter2"})
    assert "kind:wireguard-key" in err.value.remedy


def test_endpoint_by_a_name_of_the_world_is_the_members_address() -> None:
    of_a = peer("B", "10.1.0.2/32", endpoint="vpn.example.org:1")
    found, _, _ = keys(*pair(of_a, OF_B))
    assert found.tables["a"]["hosts"] == {"192.168.7.2": ["vpn.example.org"]}
    assert found.tables["b"]["hosts"] == {}
    known = replace(of_a, resolved=("192.168.7.2",))
    assert keys(*pair(known, OF_B))[0].tables["a"]["hosts"] == {}


def test_what_the_user_is_told() -> None:
    of_a = peer("B", "10.1.0.2/32", endpoint="203.0.113.5:1")
    phone = peer("PHONE", "10.1.0.99/32")
    a = member("a", 1, tunnel("10.1.0.1", of_a, phone))
    _, named, owners = keys(a, pair(OF_A, OF_B)[1])
    told = list(notes(owners, member_addresses(named, plan_networks(named))))
    assert told == [
        "peer PHONE… of wg0 of a is no member of this cluster",
        (
            "wg0 of a looks for wg0 of b at 203.0.113.5, which is no address of b here: it waits for"
            " the other to begin"
        ),
    ]


def test_hosts_without_tunnels_have_no_keys() -> None:
    found, _, _ = keys(member("a", 1), member("b", 2))
    assert found == TunnelKeys(secrets={}, tables={})
