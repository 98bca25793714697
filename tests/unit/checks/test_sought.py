"""Addresses of the machine itself that services are told to reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from checks.network.sought import (
    Sought,
    is_answered,
    nearest_port,
    remedy_of,
    runs_containers,
    sought_by,
    who_names,
)
from pytest_nixos import Unit
from pytest_nixos.observe.network.socket import InetSocket, Protocol, Sockets, UnixSocket
from pytest_nixos.observe.systemd import read_file
from pytest_nixos.observe.systemd.read_file import ReadFile, read_files
from tests.unit.standards.samples import sample_unit

NGINX = """
http {
  # proxy_pass http://127.0.0.1:9999;
  upstream app { server 127.0.0.1:3001; server 10.0.0.1:3002; }
  server { listen 127.0.0.1:8080; location / { proxy_pass http://localhost:3003; } }
  location ~ php { fastcgi_pass unix:/run/phpfpm/web.sock; }
  add_header Access-Control-Allow-Origin "http://localhost:3005";
}
"""


def listening(address: str, port: int, *, dual_stack: bool = False) -> InetSocket:
    return InetSocket(
        protocol=Protocol.TCP,
        address=address,
        port=port,
        listening=True,
        dual_stack=dual_stack,
        peer=None,
        uid=0,
        inode=1,
    )


def sockets(*inet: InetSocket, unix: str = "") -> Sockets:
    named = UnixSocket(path=unix, kind="stream", listening=True, connected=False, inode=2)
    return Sockets(inet=inet, unix=(named,), has_ipv6=True, owners={})


def addresses(tmp_path: Path, text: str = "", **service: str) -> list[str]:
    (tmp_path / "etc").mkdir(exist_ok=True)
    (tmp_path / "etc" / "app.conf").write_text(text)
    command = {"ExecStart": ("/bin/app -c /etc/app.conf",)}
    unit = sample_unit("app.service", **command, **{k: (v,) for k, v in service.items()})
    return sorted({one.address for one in sought_by(unit, tuple(read_files(unit, tmp_path)))})


def test_backends_of_a_proxy(tmp_path: Path) -> None:
    assert addresses(tmp_path, NGINX) == [
        "/run/phpfpm/web.sock",
        "127.0.0.1:3001",
        "localhost:3003",
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"static_configs":[{"targets":["localhost:9100","10.0.0.2:9100"]}]}', ["localhost:9100"]),
        (
            "targets:\n  - localhost:9100\n  - '127.0.0.1:9101'\n",
            ["127.0.0.1:9101", "localhost:9100"],
        ),
        ("reverse_proxy localhost:3000", ["localhost:3000"]),
        ("backend b\n  server one 127.0.0.1:3000 check", ["127.0.0.1:3000"]),
        ("proxy_pass http://unix:/run/app/app.sock:/;", ["/run/app/app.sock"]),
        ("listen_address = http://127.0.0.1:3000", []),
        ("CORS_ORIGINS=http://localhost:3000", []),
        ("relay = udp://127.0.0.1:514", []),
        ("see http://example.org:3000 or http://127.0.0.1/", []),
    ],
)
def test_what_a_file_has_its_service_reach(tmp_path: Path, text: str, found: list[str]) -> None:
    assert addresses(tmp_path, text) == found


def test_what_a_unit_file_has_its_service_reach(tmp_path: Path) -> None:
    url = "postgres://app:secret@127.0.0.1:5433/app"
    assert addresses(tmp_path, Environment=f'"DATABASE_URL={url}"') == ["127.0.0.1:5433"]
    assert addresses(tmp_path, Environment="ROOT_REDIRECT=http://[::1]:80") == []
    assert addresses(tmp_path, ExecStartPre="/bin/curl http://[::1]:81/") == ["[::1]:81"]


def test_a_file_that_a_script_names_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "inner.conf").write_text("proxy_pass http://127.0.0.1:3001;")
    assert addresses(tmp_path, "include /etc/inner.conf;") == ["127.0.0.1:3001"]


def test_programs_are_not_read(tmp_path: Path) -> None:
    assert addresses(tmp_path, "#!/bin/python3\nurl = 'http://localhost:3000'\n") == []
    assert addresses(tmp_path, "\0http://localhost:3000") == []


@pytest.mark.parametrize(
    ("host", "socket", "answered"),
    [
        ("localhost", listening("127.0.0.1", 80), True),
        ("localhost", listening("::1", 80), True),
        ("127.0.0.1", listening("0.0.0.0", 80), True),
        ("127.0.0.1", listening("::", 80, dual_stack=True), True),
        ("127.0.0.1", listening("::", 80), False),
        ("127.0.0.1", listening("::1", 80), False),
        ("127.0.0.1", listening("10.0.0.5", 80), False),
        ("[::1]", listening("0.0.0.0", 80), False),
        ("[::1]", listening("::", 80), True),
        ("localhost", listening("127.0.0.1", 81), False),
    ],
)
def test_only_what_takes_that_address_answers(
    host: str, socket: InetSocket, answered: bool
) -> None:
    assert is_answered(Sought(unit="a", where="b", host=host, port=80), sockets(socket)) is answered


def test_a_unix_socket_answers_by_either_of_its_names() -> None:
    one = Sought(unit="a", where="b", path="/var/run/app.sock")
    assert is_answered(one, sockets(unix="/run/app.sock"))
    assert not is_answered(one, sockets(unix="/run/app"))


def test_the_port_that_was_meant_differs_in_a_digit_and_is_nobody_elses() -> None:
    one = Sought(unit="a", where="b", host="localhost", port=3001)
    assert nearest_port(one, {3000, 80, 30001}, set()) == 3000
    assert nearest_port(one, {3010}, set()) == 3010
    assert nearest_port(one, {3000, 3002}, {3002}) == 3000
    assert nearest_port(one, {3000, 3002}, set()) == 0
    assert nearest_port(one, {5432}, set()) == 0


def test_a_variable_is_mended_by_its_option() -> None:
    one = Sought(
        unit="ui.service",
        where="Environment=",
        host="localhost",
        port=81,
        variable="API",
        value="http://localhost:81/v1",
    )
    assert remedy_of(one, 80) == (
        'systemd.services."ui".environment.API = lib.mkForce "http://localhost:80/v1";'
    )
    assert "journalctl -b -u api.service" in remedy_of(one, 0, ["api.service"])
    assert remedy_of(one, 0).startswith("# ui.service: have a service listen on localhost:81")


def files_of(services: Mapping[str, Unit], toplevel: Path) -> Mapping[str, Sequence[ReadFile]]:
    return {name: tuple(read_files(unit, toplevel)) for name, unit in services.items()}


def test_who_names_a_port_is_known(tmp_path: Path) -> None:
    services = {
        "web.service": sample_unit("web.service", ExecStart=("/bin/web",)),
        "app.service": sample_unit("app.service", ExecStart=("/bin/app --port 3001",)),
        "box.service": sample_unit(
            "box.service", ExecStart=("/bin/podman run -p 127.0.0.1:3001:80 app",)
        ),
        "other.service": sample_unit("other.service", ExecStart=("/bin/app 13001 3001.5",)),
    }
    one = Sought(unit="web.service", where="b", host="localhost", port=3001)
    assert who_names(one, services, files_of(services, tmp_path)) == ["app.service", "box.service"]
    assert runs_containers(services["box.service"])
    assert not runs_containers(services["app.service"])


def test_who_listens_may_stand_in_a_file_that_a_service_reads(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/cache.conf").write_text("bind 127.0.0.1\nport 6379\n")
    (tmp_path / "etc/slow.conf").write_text("timeout 6379\nport 63790\n")
    services = {
        name: sample_unit(name, ExecStart=(f"/bin/{word} /etc/{word}.conf",))
        for name in ("cache.service", "slow.service")
        for word in (name.removesuffix(".service"),)
    }
    one = Sought(unit="web.service", where="b", host="localhost", port=6379)
    assert who_names(one, services, files_of(services, tmp_path)) == ["cache.service"]
    assert who_names(one, services, files_of(services, tmp_path), clients={"cache.service"}) == []


def test_who_makes_the_folder_of_a_socket_is_known(tmp_path: Path) -> None:
    services = {
        "app.service": sample_unit("app.service", RuntimeDirectory=("app",)),
        "apple.service": sample_unit("apple.service", RuntimeDirectory=("apple",)),
    }
    for path in ("/run/app/app.sock", "/var/run/app/app.sock"):
        one = Sought(unit="web.service", where="b", path=path)
        assert who_names(one, services, files_of(services, tmp_path)) == ["app.service"]


def test_an_option_script_is_read_and_a_packages_script_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script"
    script.write_text("#!/nix/store/x-bash/bin/bash\ncurl http://localhost:3000 # a\n")
    monkeypatch.setattr(read_file, "Path", lambda _: script)
    for own in (
        "/nix/store/x-unit-script-app-start/bin/app-start",
        "/nix/store/x-deploy/bin/deploy",
        "/nix/store/x-deploy.sh",
    ):
        (file,) = read_files(sample_unit("a.service", ExecStart=(own,)), tmp_path)
    assert isinstance(file, ReadFile)
    assert file.is_script
    assert file.text.rstrip().endswith("3000")
    of_package = sample_unit("a.service", ExecStart=("/nix/store/x-app-1.2/bin/app",))
    assert list(read_files(of_package, tmp_path)) == []
