"""Which kernel parameters a container has of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["of_a_container"]

_NETWORK = ("net.", "net/")
_INTERFACE = re.compile(r"net/ipv[46]/(?:conf|neigh)/(?P<name>[^/]+)/\w+")
# Links that a container has from its start; nspawn names them.
_GIVEN = re.compile(r"all|default|lo|eth\d+|host0|.*[*?\[].*")
# What Linux 6.18 has in its first network namespace only, or lets nobody write in another one: net/core/sysctl_net_core.c,
# net/ipv4/sysctl_net_ipv4.c, net/ipv4/route.c, net/core/neighbour.c, net/netfilter/nf_conntrack_standalone.c.
_OF_ALL = re.compile(
    r"net/(?:"
    r"core/(?:bpf_jit_|busy_|default_qdisc|dev_weight|devconf_|fb_tunnels_|flow_limit_|gro_normal_|high_order_|max_skb_|mem_pcpu_"
    r"|message_|netdev_|rps_sock_|skb_defer_|warnings|[rw]mem_)"
    r"|ipv4/(?:cipso_|fib_sync_mem|inet_peer_|ipfrag_secret_|neigh/default/|route/(?:error_|gc_|max_size|redirect_)"
    r"|tcp_(?:allowed_congestion_control|available_ulp|low_latency|max_orphans|mem)|udp_mem)"
    r"|ipv6/(?:calipso_|ip6frag_secret_|mld_|neigh/default/)"
    r"|netfilter/nf_(?:log_all_netns|conntrack_(?:buckets|expect_max|max))|nf_conntrack_max"
    r").*"
)

# Groups above are those of the users' own containers, and a container of a test need not have them (user_namespaces(7)).
_PING_GROUPS = "net/ipv4/ping_group_range"
_GROUPS = 65536


def of_a_container(sysctls: Mapping[str, str], paths: Mapping[str, str]) -> dict[str, str]:
    """Keep those of the container's own network namespace; it has neither the host's cards nor a
    udev that sets the keys of a link that appears.

    :param paths: key to its path below ``/proc/sys``.
    """
    return {
        key: value
        for key, value in sysctls.items()
        if key.lstrip("-").startswith(_NETWORK)
        and not _OF_ALL.fullmatch(paths[key])
        and not (paths[key] == _PING_GROUPS and _last(value) >= _GROUPS)
        and (not (link := _INTERFACE.fullmatch(paths[key])) or _GIVEN.fullmatch(link["name"]))
    }


def _last(groups: str) -> int:
    words = groups.split()
    return int(words[-1]) if words and words[-1].isdigit() else 0
