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
        fail("the option `services.nonsense' does not exist")
    document = json.loads(Path(os.environ["FAKE_NIX_DOCUMENT"]).read_text())
    absent = [{"state": "absent"} for _ in request["options"]]
    document["derivation"] = f"/nix/store/{host}.drv"
    system = "aarch64-linux" if host == "arm" else document["system"]
    set_by = json.loads(os.environ.get("FAKE_NIX_WHERE", "{}"))
    where = [set_by.get(".".join(asked["names"])) for asked in request["where"]]
    return {
        **document,
        "system": system,
        "options": absent,
        "machineOptions": absent,
        "where": where,
    }


def main(arguments: list[str]) -> None:
    if "--version" in arguments:
        sys.stdout.write("nix (Nix) 2.24.10" + "\n")
    elif "metadata" in arguments:
        locked = {"type": "path", "narHash": f"sha256-{os.getpid()}"}
        sys.stdout.write(
            json.dumps(
                {"locked": locked, "locks": {"nodes": {"root": {}}}, "path": str(Path.cwd())}
            )
            + "\n"
        )
    elif "show" in arguments:
        settings = {"system": "x86_64-linux", "builders": os.environ.get("FAKE_NIX_BUILDERS", "")}
        sys.stdout.write(json.dumps({k: {"value": v} for k, v in settings.items()}) + "\n")
    elif "eval" in arguments:
        sys.stdout.write(json.dumps(evaluate(arguments[arguments.index("--apply") + 1])) + "\n")
    elif "build" in arguments:
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
