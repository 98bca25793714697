"""The packet filter in force: what it lets in, whichever of nftables and iptables made it.

Both languages are read into one (:mod:`.model`), classes of packets are walked through it as the
kernel walks a packet (:mod:`.evaluate`), and the outcomes are put together into openings
(:mod:`.reach`).
"""
