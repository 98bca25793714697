from pytest_nixos.nix.config.unit import Unit, parse_unit_file
from pytest_nixos.nix.config.unit_needs import UnitNeed, names_path, needs_of


def unit(text: str) -> Unit:
    return Unit(name="a.service", enabled=True, settings=parse_unit_file(text), wanted_by=())


def need(setting: str, path: str, *, encrypted: bool = False) -> UnitNeed:
    return UnitNeed(unit="a.service", setting=setting, path=path, encrypted=encrypted)


def test_what_a_unit_cannot_start_without() -> None:
    found = unit(
        "[Service]\nEnvironmentFile=-/may/lack\nEnvironmentFile=/a.env\nEnvironmentFile=/run/%i.env\n"
        "LoadCredential=token:/etc/token\nLoadCredential=passed-on\n"
        "LoadCredentialEncrypted=key:/etc/key.cred\nSetCredentialEncrypted=pw: k6iUCUh0RJ\n"
    )
    assert list(needs_of(found)) == [
        need("EnvironmentFile", "/a.env"),
        need("LoadCredential", "/etc/token"),
        need("LoadCredentialEncrypted", "/etc/key.cred", encrypted=True),
        need("SetCredentialEncrypted=pw", "", encrypted=True),
    ]


def test_a_path_is_named_anywhere() -> None:
    found = unit("[Service]\nExecStart=/bin/x --file=/run/secrets/a\n")
    assert names_path(found, "/run/secrets/a")
    assert not names_path(found, "/run/secrets/b")
