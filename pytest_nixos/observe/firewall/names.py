"""Numbers behind the names that nft and iptables print."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["NAMES", "PROTOCOLS", "protocol_name"]


def _table(text: str) -> Mapping[str, int]:
    return {name: int(number) for name, number in (word.split("=") for word in text.split())}


PROTOCOLS = _table(
    """
    icmp=1 igmp=2 ipencap=4 ipip=4 tcp=6 egp=8 igp=9 udp=17 dccp=33 ipv6=41
    ipv6-route=43 ipv6-frag=44 rsvp=46 gre=47 esp=50 ipv6-crypt=50 ah=51 ipv6-auth=51
    ipv6-icmp=58 icmpv6=58 ipv6-nonxt=59 ipv6-opts=60 ospf=89 ospfigp=89 etherip=97
    encap=98 pim=103 comp=108 ipcomp=108 vrrp=112 carp=112 l2tp=115 sctp=132 mh=135
    mobility-header=135 udplite=136 mpls-in-ip=137 hopopt=0 ip=0 eigrp=88
    """
)
_CT_STATES = _table("invalid=1 established=2 related=4 new=8 untracked=64")
_CT_STATUS = _table("expected=1 seen-reply=2 assured=4 confirmed=8 snat=16 dnat=32 dying=512")
_TCP_FLAGS = _table("fin=1 syn=2 rst=4 psh=8 ack=16 urg=32 ecn=64 ece=64 cwr=128")
_ICMP_TYPES = _table(
    """
    echo-reply=0 pong=0 destination-unreachable=3 source-quench=4 redirect=5
    echo-request=8 ping=8 router-advertisement=9 router-solicitation=10
    time-exceeded=11 ttl-exceeded=11 parameter-problem=12 timestamp-request=13
    timestamp-reply=14 info-request=15 info-reply=16 address-mask-request=17
    address-mask-reply=18
    """
)
_ICMPV6_TYPES = _table(
    """
    destination-unreachable=1 packet-too-big=2 time-exceeded=3 parameter-problem=4
    echo-request=128 echo-reply=129 mld-listener-query=130 mld-listener-report=131
    mld-listener-done=132 mld-listener-reduction=132 nd-router-solicit=133
    nd-router-advert=134 nd-neighbor-solicit=135 nd-neighbor-advert=136
    nd-redirect=137 router-solicitation=133 router-advertisement=134
    neighbor-solicitation=135 neighbour-solicitation=135 neighbor-advertisement=136
    neighbour-advertisement=136 redirect=137 router-renumbering=138
    ind-neighbor-solicit=141 ind-neighbor-advert=142 mld2-listener-report=143
    """
)
_ICMP_CODES = _table(
    """
    net-unreachable=0 host-unreachable=1 prot-unreachable=2 port-unreachable=3
    frag-needed=4 net-prohibited=9 host-prohibited=10 admin-prohibited=13
    """
)
_ICMPV6_CODES = _table(
    """
    no-route=0 admin-prohibited=1 addr-unreachable=3 port-unreachable=4 policy-fail=5
    reject-route=6
    """
)
_ECN = _table("not-ect=0 ect1=1 ect0=2 ce=3")
_DSCP = {
    **{f"cs{n}": 8 * n for n in range(8)},
    **{f"af{c}{d}": 8 * c + 2 * d for c in range(1, 5) for d in range(1, 4)},
    **_table("ef=46 be=0 df=0 lephb=1 va=44"),
}

#: Dimension to the names of its values.
NAMES: Mapping[str, Mapping[str, int]] = {
    "protocol": PROTOCOLS,
    "family": _table("ipv4=4 ipv6=6 ip=4 ip6=6 2=4 10=6"),
    "ctstate": _CT_STATES,
    "ctstatus": _CT_STATUS,
    "tcp.flags": _TCP_FLAGS,
    "icmp.type": _ICMP_TYPES,
    "icmpv6.type": _ICMPV6_TYPES,
    "icmp.code": _ICMP_CODES,
    "icmpv6.code": _ICMPV6_CODES,
    "pkttype": _table("host=0 unicast=0 broadcast=1 multicast=2 other=3"),
    "ethertype": _table("ip=2048 arp=2054 vlan=33024 8021q=33024 8021ad=34984 ip6=34525"),
    "ip.dscp": _DSCP,
    "ip6.dscp": _DSCP,
    "ip.ecn": _ECN,
    "ip6.ecn": _ECN,
}

_PREFERRED = _table("icmpv6=58 ipip=4 esp=50 ah=51 ipcomp=108 vrrp=112 ospf=89")
_NAME_OF = {number: name for name, number in [*PROTOCOLS.items(), *_PREFERRED.items()] if number}


def protocol_name(number: int) -> str:
    """Return a protocol's name, ``protocol 99`` if it has none here."""
    return _NAME_OF.get(number, f"protocol {number}")
