"""The life of a host: verbs, bad generations, reboots and power loss."""
