"""Units that are down for want of something."""

from __future__ import annotations

from pytest_nixos.nix.config.unit import Unit
from pytest_nixos.observe.systemd.down_unit import DownUnit, secrets_among


def unit(**service: tuple[str, ...]) -> Unit:
    return Unit(name="a.service", enabled=True, settings={"Service": service}, wanted_by=())


def test_paths_that_a_unit_cannot_do_without() -> None:
    declared = unit(
        ExecStart=("/nix/store/x-a/bin/a --config=/etc/a.conf --data /data/a",),
        LoadCredential=("token:/run/secrets/token",),
        EnvironmentFile=("-/run/secrets/optional", "/run/agenix/env"),
        ReadWritePaths=("/srv/x /srv/y",),
        StateDirectory=("a b:c",),
        Environment=('"KEY_FILE=/run/secrets/key"',),
    )
    assert declared.needed_paths == {
        "/etc/a.conf", "/data/a", "/run/secrets/token", "/run/agenix/env", "/srv/x", "/srv/y",
        "/var/lib/a", "/var/lib/b", "/run/secrets/key",
    }  # fmt: skip
    assert declared.needs_below("/data") and declared.needs_below("/var/lib")
    assert not declared.needs_below("/dat") and not declared.needs_below("/run/secrets/optional")


def test_secrets_have_their_places() -> None:
    paths = [
        "/run/secrets/a",
        "/run/agenix/b",
        "/run/secrets.d/1/c",
        "/run/user/1",
        "/etc/secrets/x",
    ]
    assert secrets_among(paths) == {"/run/secrets/a", "/run/agenix/b", "/run/secrets.d/1/c"}


def test_what_a_journal_says_counts() -> None:
    down = DownUnit(
        name="a.service", needs=frozenset({"/data/db"}), failed=True, lacks_its_account=False,
        said="a: cannot open /run/secrets/token: No such file\nwrites to /database",
    )  # fmt: skip
    assert down.secrets == {"/run/secrets/token"}
    assert down.names("/data") and down.names("/run/secrets/token")
    assert not down.names("/run/secrets/tok") and not down.names("/datab")
