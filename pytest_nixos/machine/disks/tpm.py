"""LUKS devices that a TPM unlocks, and how a PCR of a VM's TPM comes to another value.

The TPM is swtpm, which the run script starts (nixpkgs' ``virtualisation.tpm``). It is new for each
machine, so that a device is enrolled where it is made. PCRs are as the firmware leaves them, the
same at each boot.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Sequence

from pytest_nixos.machine.disks.placing import cannot
from pytest_nixos.nix.config.host_facts import HostConfig

__all__ = ["DEFAULT_PCR", "MOST_PCR", "bound_pcrs", "extending_steps", "order_command"]

#: What systemd-cryptenroll(1) binds to where it is not told otherwise, up to systemd 257.
DEFAULT_PCR = 7
#: The last one that a PC has (TCG PC Client Platform TPM Profile).
MOST_PCR = 23

# crypttab(5): numbers, or since systemd 255 names, with "+" between them.
_PCRS = re.compile(r"[\w-]+(\+[\w-]+)*")
# Behind the mark of script.py, and before the first partition.
_ORDER_AT = 768 * 1024
_ORDER = "pytest-nixos: extend PCR "
# TCG TPM 2.0 Library, part 2 (constants), and part 3 (TPM2_PCR_Extend).
_SESSIONS, _PCR_EXTEND, _PASSWORD, _SHA256 = 0x8002, 0x182, 0x40000009, 0xB
# Tag, size and code of the answer to it that tells success.
_DONE = "80020000001300000000"


def bound_pcrs(host: HostConfig, name: str, options: Sequence[str]) -> str:
    """Return the PCRs that a device's key is bound to, ``""`` where no TPM unlocks it.

    :param name: of the device.
    :param options: of its line in crypttab(5).
    :raises MachineError: if its VM cannot have a TPM, or these are no PCRs.
    """
    given = dict(option.partition("=")[::2] for option in options)
    if given.get("tpm2-device", "none") == "none":
        return ""
    if not host.machine_tpm:
        raise cannot(
            host,
            f"a TPM unlocks the LUKS device {name} (tpm2-device), and its VM has none",
            "take a nixpkgs of 23.11 or later, whose VMs can have one (virtualisation.tpm)",
        )
    pcrs = given.get("tpm2-pcrs") or str(DEFAULT_PCR)
    if not _PCRS.fullmatch(pcrs):
        raise cannot(
            host,
            f"the LUKS device {name} has tpm2-pcrs={pcrs}, which are no PCRs",
            "write them as crypttab(5) does, such as tpm2-pcrs=0+7",
        )
    return pcrs


def order_command(disk: str, pcr: int | None) -> str:
    """Return a shell command of the guest by which stage 1 finds what to do with a PCR at each boot
    from then on.

    :param disk: device of the first disk.
    :param pcr: what gets another value, ``None`` for nothing.
    """
    text = f"{_ORDER}{pcr}\n" if pcr is not None else ""
    return (
        f"{{ printf %s '{text}'; head -c 512 /dev/zero; }} | head -c 512"
        f" | dd of={disk} bs=512 seek={_ORDER_AT // 512} conv=notrunc,fsync status=none"
    )


def extending_steps(disk: str) -> str:
    """Return what stage 1 does of an order, as bash: a value is measured into a PCR, as another
    boot loader or kernel would be.

    :param disk: device of the first disk.
    """
    before, after = (_escaped(part) for part in _extend_command())
    return f"""order=$(dd if={disk} bs=512 skip={_ORDER_AT // 512} count=1 status=none | tr -d '\\0')
case $order in
"{_ORDER}"*)
  pcr=${{order##* }}
  await /dev/tpm0
  exec 9<>/dev/tpm0
  printf "{before}\\\\x$(printf %02x "$pcr"){after}" >&9
  answer=$(head -c 10 <&9 | od -An -tx1 | tr -d ' \\n')
  exec 9>&-
  [ "$answer" = {_DONE} ] || {{ say "the TPM does not extend PCR $pcr: $answer"; exit 1; }}
  say "PCR $pcr has another value"
  ;;
esac
"""


def _extend_command() -> tuple[bytes, bytes]:
    """Return TPM2_PCR_Extend up to the number of the PCR, and what is behind it."""
    password = struct.pack(">IHBH", _PASSWORD, 0, 0, 0)
    digest = hashlib.sha256(b"pytest-nixos").digest()
    after = struct.pack(">I", len(password)) + password + struct.pack(">IH", 1, _SHA256) + digest
    before = struct.pack(">HII", _SESSIONS, 10 + 4 + len(after), _PCR_EXTEND) + bytes(3)
    return before, after


def _escaped(data: bytes) -> str:
    return "".join(f"\\\\x{byte:02x}" for byte in data)
