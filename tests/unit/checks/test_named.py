"""Paths that units name, and what is meant by them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from checks.filesystem import named
from checks.filesystem.named import (
    LOOK,
    Named,
    absent_in_store,
    elsewhere,
    meant_by,
    named_by,
    packages_have,
    read_neighbours,
    remedy_of,
)
from pytest_nixos.nix.config.declared import FileSystem
from pytest_nixos.observe import read_files
from tests.unit.standards.samples import host_config, sample_unit


def look(*paths: str) -> dict[str, tuple[str, dict[str, bool]]]:
    asked = "".join(f"{path}\0" for path in paths).encode()
    done = subprocess.run(["bash", "-c", LOOK], input=asked, capture_output=True, check=True)
    return {path: (near[0], dict(near[1])) for path, near in read_neighbours(done.stdout).items()}


def test_the_guest_tells_what_lies_beside_a_path_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "config.toml").touch()
    (tmp_path / "new\nline").touch()
    there, gone = f"{tmp_path}/app", f"{tmp_path}/ap/config.toml"
    found = look(there, gone, f"{tmp_path}/app/x/y")
    assert there not in found
    assert found[gone] == (str(tmp_path), {"app": True, "new\nline": False})
    assert found[f"{tmp_path}/app/x/y"] == (there, {"config.toml": False})


@pytest.mark.parametrize(
    ("folder", "below", "names", "meant"),
    [
        ("/etc", "ap/config.toml", {"app": True}, "/etc/app/config.toml"),
        ("/etc", "ap/config.toml", {"app": False}, ""),
        ("/var/log", "ngnix", {"nginx": False}, "/var/log/nginx"),
        ("/var/lib", "postgres/data", {"postgresql": False}, "/var/lib/postgresql/data"),
        ("/etc/app", "config.yml", {"config.yaml": False}, "/etc/app/config.yaml"),
        ("/etc/app", "config.old", {"config.new": False}, ""),
        ("/etc/app", "access.log", {"acess.log": False}, "/etc/app/acess.log"),
        ("/var/lib", "backup", {"backups": False}, ""),
        ("/var/lib", "backup/key", {"backups": True}, "/var/lib/backups/key"),
        ("/var/lib", "node-1", {"node-2": False}, ""),
        ("/etc", "gshadow", {"shadow": False}, ""),
        ("/etc", "passwd-", {"passwd": False}, ""),
        ("/var/log", "btmp", {"wtmp": False}, ""),
        ("/etc/ssh", "ssh_host_dsa_key.pub", {"ssh_host_rsa_key.pub": False}, ""),
        ("/run/current-system/sw/bin", "lzcat", {"bzcat": False}, ""),
    ],
)
def test_a_slip_of_the_pen_is_told_from_another_path(
    folder: str, below: str, names: dict[str, bool], meant: str
) -> None:
    path = f"{folder}/{below}"
    assert meant_by(path, (folder, names), {path}) == meant


def test_a_path_beside_the_one_that_it_is_near_is_no_slip() -> None:
    near = ("/var/log", {"nginx": False})
    assert meant_by("/var/log/ngnix", near, {"/var/log/ngnix"}) == "/var/log/nginx"
    assert meant_by("/var/log/ngnix", near, {"/var/log/ngnix", "/var/log/nginx/a.log"}) == ""


def test_paths_of_a_unit_and_of_what_it_reads(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/app.conf").write_text(
        "# /var/lib/comment\ndata = /var/lib/app\nurl = http://host/etc/x\nlogs=$ROOT/var/log/y\n"
    )
    unit = replace(
        sample_unit("app.service"),
        settings={
            "Unit": {
                "ConditionPathExists": ("/etc/ap/key", "!/etc/later"),
                "Documentation": ("file:/usr/share/doc",),
            },
            "Service": {"ExecStart": ("/nix/store/x-app/bin/app -c /etc/app.conf",)},
        },
    )
    assert {(one.place, one.path) for one in named_by(unit, tuple(read_files(unit, tmp_path)))} == {
        ("ConditionPathExists=", "/etc/ap/key"),
        ("ExecStart=", "/etc/app.conf"),
        ("/etc/app.conf", "/var/lib/app"),
    }


def test_a_package_has_to_have_what_is_named_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = f"/nix/store/{'a' * 32}-site"
    monkeypatch.setattr(named, "Path", lambda *_: tmp_path)
    unit = sample_unit("app.service", WorkingDirectory=(f"{top}/public",))
    (one,) = absent_in_store(unit, ())
    assert (one.path, one.place) == (f"{top}/public", "WorkingDirectory=")
    started = sample_unit("app.service", ExecStart=(f"-{top}/bin/app --flag",))
    assert list(absent_in_store(started, ())) == []
    for line in (
        f"PATH={top}/sbin",
        f"A={top}/x:{top}/y",
        f"A={top}/%i",
        f"A={top}/*.conf",
        f"LD_LIBRARY_PATH={top}/lib64",
    ):
        assert list(absent_in_store(sample_unit("a.service", Environment=(line,)), ())) == []


def test_what_a_package_has_instead_is_told(tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    assert packages_have(f"{tmp_path}/public/x") == f"{tmp_path} has dist"


def test_a_directive_is_mended_by_its_option() -> None:
    one = Named(
        unit="app.service",
        where="Unit.ConditionPathExists",
        path="/etc/ap/key",
        value="|/etc/ap/key",
    )
    assert remedy_of(one, "/etc/app/key") == (
        'systemd.services."app".unitConfig.ConditionPathExists = lib.mkForce "|/etc/app/key";'
    )
    of_file = Named(unit="app.service", where="/etc/app.conf", path="/var/lib/ap")
    assert "write /var/lib/app in place of /var/lib/ap" in remedy_of(of_file, "/var/lib/app")
    assert remedy_of(of_file, "").startswith("# app.service: write a path that is there")


def test_nobody_waits_for_another_machine() -> None:
    def mounted(place: str, kind: str, *options: str) -> FileSystem:
        return FileSystem(mount_point=place, device="x", fs_type=kind, options=options)

    mounts = [
        mounted("/", "ext4"),
        mounted("/srv/nas", "nfs4"),
        mounted("/mnt/usb/", "ext4", "x-systemd.automount"),
    ]
    host = host_config(file_systems={one.mount_point: one for one in mounts})
    assert elsewhere(host) == ("/srv/nas/", "/mnt/usb/")
