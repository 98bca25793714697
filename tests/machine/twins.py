"""What the bad twins of the example flake break: host, control, severity, and what its evidence
says.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["CATALOGUE", "GOOD_TODAY_ONLY", "KERNEL", "STALE", "Broken"]

Broken = Mapping[str, tuple[str, str]]

#: catalogue-bad, a container, with the profile `twins`: control to severity and part of the reason.
CATALOGUE: Broken = {
    "AUTH-003": ("CRITICAL", "guest"),
    "AUTH-005": ("MEDIUM", "passwd 0"),
    "AUTH-006": ("CRITICAL", "root, toor"),
    "AUTH-010": ("MEDIUM", "/var/lib/id"),
    "AUTH-028": ("HIGH", "/etc/pam.d/su"),
    "AUTH-030": ("CRITICAL", "guest may run /var/lib/drop/deploy: everybody"),
    "AUTH-032": ("HIGH", "guest: ALL"),
    "AUTH-033": ("HIGH", "everybody: any action at the machine"),
    "AUD-021": ("MEDIUM", "Storage is volatile"),
    "FLK-012": ("MEDIUM", "`services.notes.old' has been renamed"),
    "FS-010": ("MEDIUM", "/var/lib/drop"),
    "FS-014": ("HIGH", "/etc/shadow mode is 644"),
    "FS-018": ("MEDIUM", "Storage is external"),
    "FS-021": ("CRITICAL", "report.service: /var/lib/drop: everybody"),
    "FS-019": ("MEDIUM", "/boot is 100"),
    "LLM-012": ("MEDIUM", "OLLAMA_ORIGINS is *"),
    "NATS-005": ("MEDIUM", "is catalogue-good, expected equal to catalogue-bad"),
    "NATS-012": ("MEDIUM", "is 0.0.0.0"),
    "NET-006": ("MEDIUM", "is false"),
    "NET-013": ("HIGH", "telnet"),
    "NET-019": ("LOW", "20-cluster: is false"),
    "NET-016": ("MEDIUM", "10.0.0.41/19"),
    "NIX-002": ("HIGH", "is root, *"),
    "NIX-003": ("CRITICAL", "is false, expected equal to true"),
    "NIX-007": ("LOW", "nix.optimise.automatic is false"),
    "NIX-012": ("LOW", "https://channels.nixos.org/nixos-unstable"),
    "SBX-001": ("HIGH", "report.service is 9."),
    "SBX-006": ("HIGH", "report.service is no"),
    "SEC-001": ("CRITICAL", "token:1: pytest-nixos canary"),
    "SEC-002": ("HIGH", "/run/secrets/token mode is 644"),
    "SEC-004": ("HIGH", "notes.service: NOTES_API_KEY"),
    "SEC-010": ("CRITICAL", "notes.service: LoadCredential"),
    "SSH-012": ("LOW", "is yes"),
    "SSH-023": ("MEDIUM", "MaxAuthTries is '60', declared '3'"),
    "TLS-006": ("HIGH", "site.key:1: private key"),
}

#: The flake in stale/, judged without a machine, with the profile `stale`.
STALE: Broken = {
    "DEV-007": ("STYLE", ".tool-versions"),
    "FLK-003": ("HIGH", "NixOS 22.05 is not supported"),
    "FLK-004": ("MEDIUM", "expected at most 30"),
    "FLK-005": ("LOW", "is somebody"),
    "FLK-006": ("LOW", "expected so many members: 1"),
    "FLK-009": ("MEDIUM", "host.nix:4: builtins.getEnv"),
    "FLK-010": ("HIGH", "host.nix:6: fetchurl"),
    "FLK-017": ("STYLE", "${./report.sh}"),
    "SEC-006": ("HIGH", "secrets/database.yaml"),
    "SEC-016": ("HIGH", "password in an address"),
}

#: Of these the good flake keeps some only for a while after its lock file was made, or not at all
#: (FLK-017: a lesson of its own).
GOOD_TODAY_ONLY = frozenset({"FLK-003", "FLK-004", "FLK-017"})

#: llm-host-bad, a VM, with the profile `kernel-twins`: what the default profile does not judge on a
#: container too.
KERNEL: Broken = {
    "AUD-002": ("HIGH", "-w /etc/passwd"),
    "CMDLINE-011": ("HIGH", "mitigations=off"),
    "FS-007": ("HIGH", "rw"),
    "MODULE-002": ("LOW", "hfsplus is loadable"),
    "SYSCTL-002": ("MEDIUM", "is 0"),
    "TIME-004": ("LOW", "time poll is 3600"),
}
