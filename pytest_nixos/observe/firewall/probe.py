"""The packet filter in force, read from a guest: nftables, both kinds of iptables, firewalld's
rules among them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput

if TYPE_CHECKING:
    from pytest_nixos.observe.firewall.ruleset import Ruleset

__all__ = ["FirewallState", "Tool", "firewall"]

_READ = r"""
PATH=$PATH:/run/current-system/sw/bin:/run/current-system/sw/sbin
# NixOS with the backend firewalld puts no nft on the path; it lies beside the library that firewalld uses.
if ! command -v nft >/dev/null; then
  firewalld=$(systemctl show --property=MainPID --value firewalld.service 2>/dev/null)
  while read -r line; do
    [[ $line =~ (/.*)/lib(/[^/]+)?/libnftables\.so ]] || continue
    PATH+=:${BASH_REMATCH[1]}/bin:${BASH_REMATCH[1]}/sbin
    break
  done 2>/dev/null </proc/"${firewalld:-0}"/maps
fi
show() {
  local name=$1; shift
  if command -v "$1" >/dev/null; then
    title "$name"; "$@"; title "$name-status $?"
  fi
}
title units; systemctl is-active firewall.service nftables.service firewalld.service
show nft nft -j list ruleset
show nft-text nft -a list ruleset
show iptables iptables-save
show ip6tables ip6tables-save
# Asked without need, these load modules into the kernel.
[ -n "$(</proc/net/ip_tables_names)" ] && show iptables-legacy iptables-legacy-save
[ -n "$(</proc/net/ip6_tables_names)" ] && show ip6tables-legacy ip6tables-legacy-save
[ -d /sys/module/ip_set ] && show ipset ipset save
title kernel
for family in ip ip6; do
  [ -r /proc/net/${family}_tables_names ] && printf '%s %s\n' $family "$(echo $(</proc/net/${family}_tables_names))"
done
show addresses ip -json -details address
# One program for both questions about a family; where it does not give a line for each, they are asked apart.
for family in 4 6; do
  command -v ip >/dev/null || break
  mapfile -t told < <(ip -$family -json -batch - <<<$'route show table all\nrule')
  if wait $! && ((${#told[@]} == 2)); then
    show routes-$family printf '%s\n' "${told[0]}"
    show rules-$family printf '%s\n' "${told[1]}"
  else
    show routes-$family ip -$family -json route show table all
    show rules-$family ip -$family -json rule
  fi
done
title forwarding
printf '4 %s\n6 %s\n' "$(</proc/sys/net/ipv4/ip_forward)" "$(</proc/sys/net/ipv6/conf/all/forwarding)" 2>/dev/null
title senders
for file in /proc/sys/net/ipv4/conf/*/rp_filter; do
  name=${file%/*}
  printf '%s %s\n' "${name##*/}" "$(<"$file")"
done 2>/dev/null
true
"""


class Tool(enum.Enum):
    """Whether a program could be asked."""

    ABSENT = "absent"
    FAILED = "failed"
    ANSWERED = "answered"


class FirewallState(msgspec.Struct, frozen=True, kw_only=True):
    """The guest's packet filter.

    :param tools: ``nft``, ``iptables``, ``ip6tables`` to whether they could be asked.
    :param units: ``firewall.service``, ``nftables.service``, ``firewalld.service`` to their active
        state.
    :param kernel_tables: family to tables of the old iptables interface in the kernel, even where
        no tool is there to show them.
    :param unseen: rules that are in force and that no tool showed, in words; empty where everything
        was seen.
    :param text: what the tools printed, for evidence.
    """

    ruleset: Ruleset
    tools: Mapping[str, Tool]
    units: Mapping[str, str]
    kernel_tables: Mapping[str, tuple[str, ...]]
    text: str
    unseen: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether any tool showed the rules; where not, an empty ruleset means nothing.

        firewalld keeps its rules in nftables, which the tools of iptables do not show.
        """
        if self.units.get("firewalld.service") == "active":
            return self.tools["nft"] is Tool.ANSWERED
        return Tool.ANSWERED in self.tools.values()

    @property
    def is_active(self) -> bool:
        """Whether a unit that loads rules is active."""
        return "active" in self.units.values()


def firewall(*, name: str = "firewall") -> Probe[FirewallState]:
    """Ask for the rules in force, the units that load them, and the interfaces and routes that
    they stand among.
    """
    return Probe(name=name, script=_READ, parse=_parse)


def _parse(output: ProbeOutput) -> FirewallState:
    # What reads rules loads when there are some: it is much.
    from pytest_nixos.observe.firewall.read import parse_firewall

    return parse_firewall(output)
