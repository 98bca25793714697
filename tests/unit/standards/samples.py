"""A sample host, and observations that make a kind see a value."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pytest_nixos.nix.command.refs import HostRef, HostSelection
from pytest_nixos.nix.config.declared import (
    Declared,
    FileSystem,
    Firewall,
    InterfacePorts,
    OllamaSettings,
    PortRange,
)
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.secrets import Secrets
from pytest_nixos.nix.config.unit import Unit
from pytest_nixos.observe.accounts.pam import PamService, pam
from pytest_nixos.observe.accounts.permission import AccountRights, Permission
from pytest_nixos.observe.accounts.polkit import Answers
from pytest_nixos.observe.accounts.sudo import SudoRights
from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.observe.core_dump import CoreDumps
from pytest_nixos.observe.filesystems.drift import Drift
from pytest_nixos.observe.filesystems.file import FileState
from pytest_nixos.observe.filesystems.mount import Mount, MountTable
from pytest_nixos.observe.filesystems.search_path import SearchPath
from pytest_nixos.observe.network.http import HttpAnswer
from pytest_nixos.observe.network.resolver import LinkResolver, Resolver
from pytest_nixos.observe.oci_container import OciContainer, OciContainers
from pytest_nixos.observe.systemd.process import ProcessFacts, process_facts
from pytest_nixos.observe.systemd.unit import Exposure, UnitState
from pytest_nixos.standards.control.model import Control, DeclaredSpec, Operator
from pytest_nixos.standards.sources.flake_files import FlakeFiles, StoreScan
from tests.unit.standards.values import APPLICATION, satisfying

Json = Any
TODAY = dt.date(2026, 11, 21)

APPLICATIONS = (APPLICATION, "nats.service", "ollama.service")
#: Units of the sample host; nobody but `app.service` counts as an application unless its control
#: names it.
UNITS = (APPLICATION, "ollama.service", "nats.service", "acme-sample.timer")


TOPLEVEL = "/nix/store/t"


def host_config(**changes: Json) -> HostConfig:
    """Return a small host config; `options` maps paths to values."""
    options = changes.pop("options", {})
    no_ports = InterfacePorts()
    base = HostConfig(
        ref=_ref(),
        host_name="sample",
        system_name="sample",
        system="x86_64-linux",
        guest_system="x86_64-linux",
        state_version="25.11",
        release="25.11",
        version="25.11",
        is_container=False,
        firewall=Firewall(
            enabled=True,
            backend="nftables",
            everywhere=no_ports,
            interfaces={},
            trusted_interfaces=(),
            allow_ping=True,
            reject_packets=False,
        ),
        sysctls={},
        zram=None,
        units={name: sample_unit(name) for name in UNITS},
        users={},
        groups=(),
        ollama=None,
        kernel_params=(),
        file_systems={},
        swap_devices=(),
        luks_devices=(),
        initrd_text="",
        warnings=(),
        vm=None,
        secrets=Secrets(),
        options={p: Declared(path=p, state="present", value=v) for p, v in options.items()},
        changed={},
        derivation="/nix/store/x.drv",
        toplevel=TOPLEVEL,
        program="bin/run-sample-vm",
    )
    return msgspec.structs.replace(base, **changes)


def sample_unit(name: str, **service: tuple[str, ...]) -> Unit:
    return Unit(
        name=name, enabled=True, settings={"Service": service}, wanted_by=("multi-user.target",)
    )


def _ref() -> HostRef:
    ref = HostSelection.parse("/tmp#sample", cwd=Path("/tmp")).host
    assert ref is not None
    return ref


def nested(keys: tuple[str, ...], value: Json) -> Json:
    """Return what selecting `keys` in finds `value`; below ``*`` a mapping is spread over
    members.
    """
    if not keys:
        return value
    if keys[0] == "*":
        members = value if isinstance(value, Mapping) else {"member": value}
        return {name: nested(keys[1:], inner) for name, inner in members.items()}
    return {keys[0]: nested(keys[1:], value)}


def declared_options(spec: DeclaredSpec, value: Json) -> dict[str, Json]:
    """Return options under which `spec` yields `value`."""
    if len(spec.options) == 1:
        return {spec.options[0]: nested(spec.select, value)}
    if isinstance(value, Mapping):
        values = list(value.values())
        return {
            path: nested(spec.select, value.get(path, values[0] if APPLICATION in value else None))
            for path in spec.options
        }
    return {path: nested(spec.select, value) for path in spec.options}


def required_options(control: Control) -> dict[str, Json]:
    """Return options under which `control` applies."""
    found: dict[str, Json] = {}
    for requirement in control.requires:
        value = satisfying(requirement.expect)
        if requirement.expect.op is Operator.NOT_EMPTY:
            value = {"member": {}}
        new = nested(requirement.declared.select, value)
        for path in requirement.declared.options:
            found[path] = {**found[path], **new} if isinstance(found.get(path), dict) else new
    return found


def observation(kind: str, p: Mapping[str, Json], value: Json) -> object | None:  # noqa: PLR0911, PLR0912, C901 - one case a kind
    """Return what the probe of `kind` would have parsed if the machine had `value` for the
    parameters `p`.
    """
    match kind:
        case "sysctl":
            texts = value if "keys" in p else {p["key"]: value}
            return {k: None if v is None else str(v) for k, v in texts.items()}
        case "kernel-param":
            if p["name"] == "*":
                return tuple(value) if isinstance(value, list) else (str(value),)
            return () if value is None else (f"{p['name']}={value}",)
        case "unit-property":
            return _unit_states(p, value)
        case "unit-exposure":
            score = next(iter(value.values()))
            names = p.get("units", APPLICATIONS)
            return {n: Exposure(unit=n, score=score, rating="X", items=()) for n in names}
        case "mount":
            return _mount_table(p, value)
        case "file":
            return _path_states(p, value)
        case "sshd":
            return {"settings": {p["key"].lower(): value}}
        case "module":
            state = next(iter(value.values()))
            return dict.fromkeys(p["names"], state)
        case "process":
            return _processes(p, value)
        case "program":
            return tuple(p["names"]) if value else ()
        case "pam":
            return _pam(p["field"], next(iter(value.values())))
        case "sudo":
            return _sudo(p["fact"], value)
        case "doas":
            return _doas(p["fact"], value)
        case "polkit":
            told = {p["fact"].replace("-", "_"): tuple(value)}
            nothing: dict[str, tuple[str, ...]] = dict.fromkeys(_POLKIT, ())
            return Answers(**{**nothing, **told}, unclear={p["fact"]: ()})
        case "drift":
            return _drift(p["fact"], value)
        case "oci-drift":
            made = tuple(OciContainer(engine="podman", name=str(name)) for name in value)
            return OciContainers(engines=("podman",), containers=made, quadlets=())
        case "search-path":
            whose = {"system": "root", "users": "user alice"}[p["of"]]
            return [SearchPath(whose=whose, account="root", directories=(), loose=tuple(value))]
        case "resolver":
            state = LinkResolver(servers=(), dnssec=value, dns_over_tls=value)
            return Resolver(everywhere=state, links={})
        case "core-dumps":
            return CoreDumps(
                pattern=f"|/bin/{value[0]}" if value else "|/bin/false", storage="", dumping=()
            )
        case "http":
            return _AnyUrl(_answer(p, value))
        case (
            "account"
            | "clock"
            | "generation"
            | "journal"
            | "nix"
            | "podman"
            | "processor"
            | "scan"
            | "storage"
        ):
            return {p["fact"]: nested(tuple(p.get("select", ())), value)}
        case "audit" if "status" in p:
            return {"status": {p["status"]: value}, "rules": []}
        case _:
            return None


def _pam(field: str, value: Json) -> Mapping[str, PamService] | None:
    before, after = "", "auth required pam_deny.so\n"
    unix = "auth sufficient pam_unix.so nodelay"
    match field:
        case "nullok":
            unix += " nullok" if value else ""
        case "delay":
            before = f"auth optional pam_faildelay.so delay={int(value * 1e6)}\n"
        case "password-quality":
            said = " ".join(f"{key}={setting}" for key, setting in value.items())
            rule = f"password requisite pam_pwquality.so {said}\n"
            return parse_pam({"passwd": f"{rule}password sufficient pam_unix.so\n"})
        case "wheel":
            before = "auth required pam_wheel.so use_uid\n" if value else ""
        case _:
            limits = f"deny={value['deny']} fail_interval={value['fail_interval']}"
            before = f"auth required pam_faillock.so preauth {limits}\n" if value["preauth"] else ""
            after = (
                f"auth [default=die] pam_faillock.so authfail {limits}\n"
                if value["authfail"]
                else ""
            )
    return parse_pam({"su": f"{before}{unix}\n{after}"})


def parse_pam(files: Mapping[str, str], pwquality: str = "") -> Mapping[str, PamService] | None:
    """Return what the probe makes of these files of ``/etc/pam.d``."""
    text = "".join(f"=service {name}\n{body}\n" for name, body in files.items())
    text += f"=pwquality\n{pwquality}\n"
    return pam().parse(ProbeOutput(stdout=f"{text}=complete\n".encode(), exit_status=0))


def _drift(fact: str, value: Json) -> Drift:
    """The system that runs is the flake's, which :func:`host_config` names, or another one."""
    seen: dict[str, tuple[str, ...]] = {} if fact == "system" else {fact: tuple(value)}
    return Drift(
        current="other" if fact == "system" and value else TOPLEVEL,
        generations={},
        specialisations={},
        files=seen.get("files", ()),
        containers=seen.get("containers", ()),
        accounts=seen.get("accounts", ()),
    )


_POLKIT = ("as_root", "to_anybody", "administrators")


def _doas(fact: str, value: Json) -> list[AccountRights]:
    if not value:
        return []
    may = Permission(command="ALL", run_as=("root",), asks=fact != "without-password")
    return [AccountRights(account="alice", in_wheel=False, permissions=(may,))]


def _sudo(fact: str, value: Json) -> list[SudoRights]:
    if not value:
        return []
    may = Permission(command="ALL", run_as=("root",), asks=fact != "without-password")
    minutes = next(iter(value.values())) if isinstance(value, Mapping) else 0.0
    return [
        SudoRights(
            account="alice", in_wheel=False, permissions=(may,), remembers_min=minutes,
            replaceable=("/srv/x: bob",),
        )
    ]  # fmt: skip


class _AnyUrl(dict[str, HttpAnswer]):
    """The same answer for every URL."""

    def __init__(self, answer: HttpAnswer) -> None:
        super().__init__()
        self.answer = answer

    def get(self, key: str, default: object = None) -> HttpAnswer:
        return self.answer


def _answer(p: Mapping[str, Json], value: Json) -> HttpAnswer:
    import json

    field = p.get("field", "status")
    status = (
        value if field == "status" and isinstance(value, int) else 599 if field == "status" else 200
    )
    select = tuple(p.get("select", ()))
    body = json.dumps(nested(select, value)) if field == "json" else str(value)
    return HttpAnswer(status=status, headers={}, body=body.encode(), failure="")


def _unit_states(p: Mapping[str, Json], value: Json) -> dict[str, UnitState]:
    names = (
        list(APPLICATIONS) if "services" in p else [p["unit"]] if "unit" in p else list(p["units"])
    )
    names = [n.replace("*", "sample") for n in names]
    states: dict[str, UnitState] = {}
    for name in names:
        if "where" in p:
            own: Json = (
                p["where"] if name in (value or ()) or value == ["something-else"] else "inactive"
            )
            if isinstance(value, list) and value and value[0].isdigit():
                own = p["where"] if names.index(name) < len(value) else "inactive"
        elif isinstance(value, Mapping) and "unit" not in p:
            own = value.get(name, value.get(APPLICATION))
        else:
            own = value
        properties = own if isinstance(own, Mapping) else {p.get("property", "ActiveState"): own}
        texts = {
            k: str(v) if not isinstance(v, list) else " ".join(v) for k, v in properties.items()
        }
        states[name] = UnitState(
            name=name, properties={"FragmentPath": "/x", "LoadState": "loaded", **texts}
        )
    return states


def _mount_table(p: Mapping[str, Json], value: Json) -> MountTable:
    values = [value] if isinstance(value, str) else list(value or [])
    other = _mount("/elsewhere", ["rw"])
    return MountTable(mounts=(other, _mount(p["target"], values)))


def _mount(path: str, options: list[str]) -> Mount:
    return Mount(
        path=path, root="/", filesystem="ext4", source="/dev/x", options=tuple(options),
        super_options=("rw",), device_number="8:1",
    )  # fmt: skip


def _path_states(p: Mapping[str, Json], value: Json) -> dict[str, tuple[FileState, ...]]:
    patterns = list(p.get("paths", ())) or [p["path"]]
    single = "path" in p and "*" not in p["path"]
    if p["field"] == "found":
        return {n: (_path(n),) if value else () for n in patterns}
    if not single and isinstance(value, Mapping):
        value = next(iter(value.values()))
    if value is None and p["field"] != "match":
        return dict.fromkeys(patterns, ())
    if p["field"] == "state":
        known = {k: str(v) for k, v in value.items()} if isinstance(value, Mapping) else {}
        return {n: (msgspec.structs.replace(_path(n), **known),) for n in patterns}
    if p["field"] == "settings":
        text = "".join(f"{key} = {v}\n" for key, v in value.items() if v is not None)
    elif p["field"] == "match":
        text = _text_for(p["pattern"], value)
    elif p["field"] == "days-left":
        text = certificate(days_left=int(value))
    else:
        text = " ".join(value) if isinstance(value, list) else str(value)
    return {n: (msgspec.structs.replace(_path(n), content=text),) for n in patterns}


def _path(name: str) -> FileState:
    return FileState(
        path=name, mode="644", owner="root", group="root", type="regular file", content=""
    )


def _text_for(pattern: str, value: Json) -> str:
    samples = {
        r"\[(\S+)\]": f"lzo [{value}] lz4",
        r"\[(\w+)\]": f"always [{value}] never",
        r"^\s*0\s+": f"         0     {value}      65536",
    }
    if value is None:
        return "nothing of the sort"
    return next(text for mark, text in samples.items() if mark in pattern)


def certificate(*, days_left: int) -> str:
    """Return a certificate in PEM form that its own key signed."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sample")])
    end = dt.datetime.now(dt.UTC) + dt.timedelta(days=days_left, hours=1)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(end)
        .sign(key, None)
    )
    return built.public_bytes(Encoding.PEM).decode()


def _processes(p: Mapping[str, Json], value: Json) -> Mapping[str, ProcessFacts | None]:
    name = p["units"][0]
    text = f"=unit {name} {name}\n=status 7\nName: x\n"
    if p["field"] == "environment":
        known = "".join(f"{k}={v}\0" for k, v in value.items() if v is not None)
        text += f"=environment 7\n{known}\n"
    elif p["field"] == "oom-score-adj":
        text += f"=oom 7\n{int(next(iter(value.values())))}\n"
    else:
        text += f"=command 7\n{next(iter(value.values()))}\n"
    return process_facts([name]).parse(ProbeOutput(stdout=text.encode(), exit_status=0))


__all__ = [
    "APPLICATION", "TODAY", "FileSystem", "FlakeFiles", "OllamaSettings", "PortRange", "ProbeOutput", "StoreScan",
    "certificate", "declared_options", "host_config", "nested", "observation", "parse_pam", "required_options",
    "sample_unit",
]  # fmt: skip
