"""A display and sound that a host asks for its VM (``virtualisation.qemu.options``) need a desktop
that is not there: QEMU would end, or open a window on the screen of whoever runs the test.

``-nographic`` comes last and wins over ``-display``, but QEMU has refused by then what its build or
this machine lacks (gtk, OpenGL, PulseAudio); so the words themselves are replaced, in a copy of the
run script. Devices of the guest stay, but for those that draw by OpenGL on this machine's screen.

Ports of this machine that are forwarded to the guest (``virtualisation.forwardPorts``) are listened on by QEMU on all addresses where no
``host.address`` is declared: everybody on this machine's network would reach the guest under test. They are moved to the loopback address.

The networks between the nodes of a NixOS test are switches that its driver runs (VDE). Here a node
is alone: its cards stay, and nobody answers on them.
"""

from __future__ import annotations

import re
from pathlib import Path

from pytest_nixos.machine.vm.run_script import RunScript
from pytest_nixos.machine.vm.store_image import ImageBlock

__all__ = ["ALONE", "harmless", "harmless_script", "local_ports"]

#: What is told of a network to other machines of a NixOS test, which are not there.
ALONE = "the test's network"

_DISPLAY = re.compile(r"(?<=-display)(\s+['\"]?)(?!none\b)([\w-]+)[^\s'\"]*")
_AUDIO_BACKEND = re.compile(r"(?<=-audiodev)(\s+['\"]?)(?!none\b)(?:driver=)?([\w-]+)([^\s'\"]*)")
_AUDIO = re.compile(r"(?<=-audio)(\s+['\"]?)(?!none\b|dev)(?:driver=)?([\w-]+)([^\s'\"]*)")
_GL_DEVICE = re.compile(r"(?<=-device)(\s+['\"]?)(virtio-(?:vga|gpu))-gl\b")
_TEST_NETWORK = re.compile(
    r"(?<=-netdev)(\s+['\"]?)vde,id=([\w.-]+)(?:,sock=(?:\"[^\"]*\"|[^\s'\"]*))?"
)
_KEPT_AUDIO = re.compile(r",(?:id|model)=[^,]*")
_FORWARD = re.compile(r"(?<=\bhostfwd=)(tcp|udp)?:(?:0\.0\.0\.0)?:(?=\d)")
_COPY = "run-vm"
_EXECUTABLE = 0o700


def harmless(text: str) -> tuple[str, tuple[str, ...]]:
    """Return a run script's text without a display, sound and networks of a NixOS test, and what
    was replaced.
    """
    replaced: list[str] = []

    def display(found: re.Match[str]) -> str:
        replaced.append(f"-display {found[2]}")
        return f"{found[1]}none"

    def audio(found: re.Match[str]) -> str:
        replaced.append(f"sound by {found[2]}")
        return f"{found[1]}none{''.join(_KEPT_AUDIO.findall(found[3]))}"

    def device(found: re.Match[str]) -> str:
        replaced.append(f"{found[2]}-gl")
        return f"{found[1]}{found[2]}"

    def network(found: re.Match[str]) -> str:
        # One to which nobody has connected drops what is sent. A hub without anybody else would keep it, and
        # the guest would tell a broken card.
        replaced.append(f"{ALONE} {found[2]}")
        return f"{found[1]}socket,id={found[2]},listen=127.0.0.1:0"

    for pattern, replace in (
        (_TEST_NETWORK, network),
        (_DISPLAY, display),
        (_AUDIO_BACKEND, audio),
        (_AUDIO, audio),
        (_GL_DEVICE, device),
    ):
        text = pattern.sub(replace, text)
    return text, tuple(dict.fromkeys(replaced))


def local_ports(text: str) -> str:
    """Return a run script's text with the ports that QEMU would listen on everywhere on loopback."""
    return _FORWARD.sub(lambda found: f"{found[1] or 'tcp'}:127.0.0.1:", text)


def harmless_script(
    script: RunScript, run_dir: Path, *, image_block: ImageBlock | None = None
) -> Path:
    """Return the script to start: the host's own, or a copy of it in the run directory where
    something had to be replaced.

    :param image_block: what is left out, since the image of the store is there already.
    """
    text = local_ports(harmless(script.text)[0])
    if image_block is not None:
        text = image_block.left_out_of(text)
    if text == script.text or not script.is_whole:
        return script.path
    copy = run_dir / _COPY
    copy.write_text(text)
    copy.chmod(_EXECUTABLE)
    return copy
