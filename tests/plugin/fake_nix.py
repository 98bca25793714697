"""Stands in for ``nix`` in the plugin's tests: answers what the plugin asks, from the
environment.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

HOSTS = os.environ["FAKE_NIX_HOSTS"].split()

# Releases and builds of Nix that differ in what the plugin asks: name to what ``--version`` says.
# 2.8, 2.26 and 2.34 were run; how the others differ was read in their sources and release notes.
LANES = {
    "2.8": "nix (Nix) 2.8.0",
    "2.24": "nix (Nix) 2.24.10",
    "2.26": "nix (Nix) 2.26.3",
    "2.29": "nix (Nix) 2.29.1",
    "2.33": "nix (Nix) 2.33.0",
    "2.34": "nix (Nix) 2.34.8",
    "2.35": "nix (Nix) 2.35.0",
    "determinate": "nix (Determinate Nix 3.22.0) 2.35.0",
    "lix": "nix (Lix, like Nix) 2.93.0",
}
LANE = os.environ.get("FAKE_NIX_LANE", "2.24")
STORE = os.environ.get("FAKE_NIX_STORE", "/nix/store")
#: They evaluate a flake without copying it into the store first.
LAZY = LANE in ("2.35", "determinate")


def said(message: str) -> str:
    """Return a message with the quotes of this release: paths in double ones from 2.34 on."""
    newer = LANE in ("2.34", "2.35", "determinate")
    return re.sub(r"'(/[^']*)'", r'"\1"', message) if newer else message


def metadata() -> dict[str, Any]:
    if problem := os.environ.get("FAKE_NIX_METADATA_FAILS"):
        fail(said(problem))
    locked = {
        "type": "path",
        "narHash": f"sha256-{os.environ.get('FAKE_NIX_CONTENT', os.getpid())}",
    }
    document = {"locked": locked, "locks": {"nodes": {"root": {}}}, "path": str(Path.cwd())}
    if LANE == "determinate":
        del document["path"]
    elif LAZY:
        document["path"] = "/nix/store/00000000000000000000000000000000-source"
    return document


def fail(message: str) -> None:
    event = {"action": "msg", "level": 0, "msg": f"error: {message}", "raw_msg": message}
    sys.stderr.write(f"@nix {json.dumps(event)}\n")
    sys.exit(1)


def request_of(expression: str) -> dict[str, Any]:
    found = re.search(r'request = builtins.fromJSON "(.*)";\n', expression)
    assert found is not None
    request: dict[str, Any] = json.loads(re.sub(r"\\(.)", r"\1", found[1]))
    return request


def evaluate(expression: str) -> object:
    if "request" not in expression:
        return sorted(HOSTS)
    request = request_of(expression)
    host = request["host"]
    if host not in HOSTS:
        return {"problem": "no-host", "known": sorted(HOSTS)}
    if log := os.environ.get("FAKE_NIX_LOG"):
        with Path(log).open("a") as stream:
            stream.write(f"{host}\n")
    if host == "iso" and request.get("refuseImage"):
        return {"problem": "image", "kind": "an ISO image"}
    if host == "broken":
        fail(os.environ.get("FAKE_NIX_BROKEN", "the option `services.nonsense' does not exist"))
    document = json.loads(Path(os.environ["FAKE_NIX_DOCUMENT"]).read_text())
    known = document.pop("optionsByPath", {})
    options = [
        {"state": "present", "value": known[path]} if path in known else {"state": "absent"}
        for path in map(".".join, request["options"])
    ]
    document["derivation"] = f"{STORE}/{host}.drv"
    system = "aarch64-linux" if host == "arm" else document["system"]
    set_by = json.loads(os.environ.get("FAKE_NIX_WHERE", "{}"))
    where = [set_by.get(".".join(asked["names"])) for asked in request["where"]]
    return {
        **document,
        "system": system,
        "options": options,
        "machineOptions": options,
        "where": where,
    }


def main(arguments: list[str]) -> None:
    if "--version" in arguments:
        sys.stdout.write(LANES[LANE] + "\n")
    elif "metadata" in arguments:
        sys.stdout.write(json.dumps(metadata()) + "\n")
    elif "prefetch" in arguments and LANE != "2.8":
        sys.stdout.write(json.dumps({"hash": "sha256-x", "storePath": str(Path.cwd())}) + "\n")
    elif "show" in arguments:
        settings = {"system": "x86_64-linux", "builders": os.environ.get("FAKE_NIX_BUILDERS", "")}
        sys.stdout.write(json.dumps({k: {"value": v} for k, v in settings.items()}) + "\n")
    elif "eval" in arguments:
        if any(word.endswith("#homeConfigurations") for word in arguments):
            fail("flake 'path:/f' does not provide attribute 'homeConfigurations'")
        sys.stdout.write(json.dumps(evaluate(arguments[arguments.index("--apply") + 1])) + "\n")
    elif "build" in arguments:
        if problem := os.environ.get("FAKE_NIX_BUILD_FAILS"):
            fail(problem)
        if log := os.environ.get("FAKE_NIX_BUILDS"):
            with Path(log).open("a") as stream:
                stream.write(
                    " ".join(word for word in arguments if word.startswith("/nix/")) + "\n"
                )
        sys.stdout.write(
            json.dumps([{"drvPath": "/nix/store/d.drv", "outputs": {"out": "/nix/store/o"}}]) + "\n"
        )
    else:
        fail(f"fake nix: unexpected arguments {arguments}")


main(sys.argv[1:])
