"""What a desktop host asks of QEMU is made harmless, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.machine.vm.harmless import harmless, harmless_script, local_ports
from pytest_nixos.machine.vm.run_script import parse_run_script


@pytest.mark.parametrize(
    ("given", "made", "told"),
    [
        ("-display gtk,gl=on -m 1", "-display none -m 1", ("-display gtk",)),
        ("-display 'sdl'", "-display 'none'", ("-display sdl",)),
        ("-device virtio-vga-gl,xres=1", "-device virtio-vga,xres=1", ("virtio-vga-gl",)),
        ("-device virtio-gpu-gl-pci", "-device virtio-gpu-pci", ("virtio-gpu-gl",)),
        (
            "-audiodev pa,id=snd0,server=/run/x -device hda",
            "-audiodev none,id=snd0 -device hda",
            ("sound by pa",),
        ),
        (
            "-audio driver=pipewire,model=hda",
            "-audio none,model=hda",
            ("sound by pipewire",),
        ),
        (
            '-netdev vde,id=vlan1,sock="$QEMU_VDE_SOCKET_1" -netdev vde,id=vlan2,sock="$QEMU_VDE_SOCKET_7" -m 1',
            "-netdev socket,id=vlan1,listen=127.0.0.1:0 -netdev socket,id=vlan2,listen=127.0.0.1:0 -m 1",
            ("the test's network vlan1", "the test's network vlan2"),
        ),
        ("-netdev user,id=user.0 # vde,id=x", "-netdev user,id=user.0 # vde,id=x", ()),
        ("-audiodev none,id=x -display none", "-audiodev none,id=x -display none", ()),
        ("-device virtio-vga -vga std", "-device virtio-vga -vga std", ()),
        ("--display-name x; echo -displayed gtk", "--display-name x; echo -displayed gtk", ()),
    ],
)
def test_display_and_sound_are_replaced(given: str, made: str, told: tuple[str, ...]) -> None:
    text, replaced = harmless(given)
    assert text == made
    assert replaced == told


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (
            "-netdev user,id=user.0,hostfwd=tcp::8080-:80,hostfwd=udp::53-10.0.2.15:53",
            "-netdev user,id=user.0,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp:127.0.0.1:53-10.0.2.15:53",
        ),
        ("hostfwd=tcp:0.0.0.0:22-:22,", "hostfwd=tcp:127.0.0.1:22-:22,"),
        ("hostfwd=::2222-:22", "hostfwd=tcp:127.0.0.1:2222-:22"),
        ("hostfwd=tcp:192.168.7.1:22-:22", "hostfwd=tcp:192.168.7.1:22-:22"),
        ("hostfwd=tcp:127.0.0.1:22-:22", "hostfwd=tcp:127.0.0.1:22-:22"),
    ],
)
def test_forwarded_ports_are_on_loopback_unless_an_address_is_declared(
    tmp_path: Path, given: str, made: str
) -> None:
    assert local_ports(given) == made
    script = tmp_path / "run"
    script.write_text(f"exec qemu-kvm {given}\n")
    assert (
        harmless_script(parse_run_script(script), tmp_path).read_text().split()[2:] == made.split()
    )


def test_only_a_script_that_needs_it_is_copied(tmp_path: Path) -> None:
    script = tmp_path / "run"
    script.write_text("#!/bin/sh\nexec qemu-kvm -display gtk\n")
    copy = harmless_script(parse_run_script(script), tmp_path)
    assert copy != script and copy.stat().st_mode & 0o100
    assert copy.read_text() == "#!/bin/sh\nexec qemu-kvm -display none\n"

    script.write_text("#!/bin/sh\nexec qemu-kvm -m 1\n")
    assert harmless_script(parse_run_script(script), tmp_path) == script
    script.write_bytes(b"\x7fELF\xff -display gtk")
    assert harmless_script(parse_run_script(script), tmp_path) == script
