"""What a machine gets, and what is never kept."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyrage
import pytest

from pytest_nixos.errors import SettingsError
from pytest_nixos.nix.command.cache import EvaluationCache
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.secrets import Secret, SecretModule, Secrets, SecretUse
from pytest_nixos.test_secrets.archive import TestSecrets, make_secrets
from pytest_nixos.test_secrets.given import GivenSecret, RealKey, check_declared
from pytest_nixos.test_secrets.kind import Kind
from pytest_nixos.test_secrets.sops_file import NotSops, lengths_of, written
from pytest_nixos.test_secrets.values import SecretError
from tests.unit.standards.samples import host_config, sample_unit

NOBODY = pyrage.x25519.Identity.generate().to_public()


def sops(name: str, source: Path | None = None, **more: str) -> Secret:
    return Secret(
        name=name,
        module=SecretModule.SOPS,
        source=str(source or ""),
        key=more.get("key", name),
        format=more.get("format", "yaml"),
        path=f"/run/secrets/{name}",
    )


def age(name: str, source: Path | None = None) -> Secret:
    return Secret(
        name=name, module=SecretModule.AGE, path=f"/run/agenix/{name}", source=str(source or "")
    )


def host(*secrets: Secret, uses: tuple[SecretUse, ...] = ()) -> HostConfig:
    return host_config(secrets=Secrets(secrets=secrets, uses=uses))


def unpacked(made: TestSecrets) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(made.archive())) as tar:
        files = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        return {name: file.read() for name, file in files.items() if file is not None}


def texts(made: TestSecrets, name: str) -> tuple[str, ...]:
    return made.texts_of(next(s for s in made.secrets if s.name == name))


def test_the_archive_opens_with_its_own_key() -> None:
    made = make_secrets(host(sops("a"), age("b/c")))
    files = unpacked(made)
    identity = pyrage.x25519.Identity.from_str(files["key"].decode().strip())
    first, second = (files[made.file_of(s).rpartition("/")[2]] for s in made.secrets)
    assert list(lengths_of(first.decode(), "yaml", about="f")) == ["a"]
    assert pyrage.decrypt(second, [identity]).decode() == texts(made, "b/c")[0]
    assert made.told == "2 secrets have test values"
    assert made.identity.strip() not in repr(made)


def test_the_whole_file_has_the_names_of_the_repositorys(tmp_path: Path) -> None:
    source = tmp_path / "app.env"
    source.write_text(written({"DB_PASSWORD": "0" * 20, "KEY": "abc"}, "dotenv", NOBODY))
    secret = sops("env", source, format="dotenv")
    made = make_secrets(host(secret))
    assert made.values["sops:env"].keys() == {"DB_PASSWORD", "KEY"}
    assert len(made.values["sops:env"]["DB_PASSWORD"]) == 20
    assert "abc" not in texts(made, "env")


def test_secrets_that_are_one_at_home_are_one_here(tmp_path: Path) -> None:
    source = tmp_path / "s.yaml"
    source.write_text(written({"n": {"x": "1234567890"}}, "yaml", NOBODY))
    made = make_secrets(host(sops("a", source, key="n/x"), sops("b", source, key="n/x"), sops("c")))
    assert texts(made, "a") == texts(made, "b") != texts(made, "c")
    assert made.values["sops:a"] == {"n": {"x": texts(made, "a")[0]}}


def test_a_password_file_gets_a_hash_whatever_it_is_called() -> None:
    use = SecretUse(option="o", path="/run/secrets/alice", kind="password-hash")
    assert texts(make_secrets(host(sops("alice"), uses=(use,))), "alice")[0].startswith("$6$")


def test_what_sops_nix_would_refuse_is_refused(tmp_path: Path) -> None:
    plain, real, aged = tmp_path / "p.yaml", tmp_path / "s.yaml", tmp_path / "t.age"
    plain.write_text("token: readable\n")
    real.write_text(written({"a": "x", "n": {"y": "z"}}, "yaml", NOBODY))
    aged.write_text("not encrypted")
    with pytest.raises(NotSops, match=r"p\.yaml"):
        make_secrets(host(sops("token", plain)))
    with pytest.raises(SecretError, match="no key 'b'"):
        make_secrets(host(sops("b", real)))
    with pytest.raises(SecretError, match="no single value"):
        make_secrets(host(sops("n", real)))
    with pytest.raises(SecretError, match="no file of age"):
        make_secrets(host(age("t", aged)))
    with pytest.raises(SecretError, match="format 'toml'"):
        make_secrets(host(sops("t", real, format="toml")))


def test_a_file_that_is_not_here_or_locked_is_no_error(tmp_path: Path) -> None:
    locked = tmp_path / "l.yaml"
    locked.write_bytes(b"\0GITCRYPT\0xyz")
    made = make_secrets(host(sops("a", locked), sops("b", tmp_path / "none"), age("c", locked)))
    assert all(made.texts_of(secret) for secret in made.secrets)


def test_values_are_kept_and_named_by_their_digest(tmp_path: Path) -> None:
    cache = EvaluationCache(directory=tmp_path / "c")
    first = make_secrets(host(sops("a")), cache=cache)
    again = make_secrets(host(sops("a")), cache=cache)
    assert first.digest == again.digest and first.keepable
    assert first.digest != make_secrets(host(sops("a"), sops("b")), cache=cache).digest
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "c").iterdir())


def test_what_the_user_gives_is_never_kept(tmp_path: Path) -> None:
    cache = EvaluationCache(directory=tmp_path / "c")
    (tmp_path / "v").write_bytes(b"mine\xff")
    given = [
        GivenSecret.parse("sample:a=v", cwd=tmp_path),
        GivenSecret.parse("/etc/x=v", cwd=tmp_path),
    ]
    made = make_secrets(host(sops("a")), given=given, cache=cache)
    assert texts(made, "a")[0].encode(errors="surrogateescape") == b"mine\xff"
    assert unpacked(made)["0"] == b"mine\xff"
    assert unpacked(made)[".files"] == b"0\t-\t/etc/x\n"
    assert not made.keepable and not (tmp_path / "c").exists()


def test_a_plain_file_belongs_to_the_account_of_its_unit(tmp_path: Path) -> None:
    unit = sample_unit("app.service", EnvironmentFile=("/etc/app.env",), User=("app",))
    config = host_config(units={"app.service": unit}, users={"app": None})
    given = [GivenSecret.parse("/etc/app.env=kind:environment", cwd=tmp_path)]
    made = make_secrets(config, given=given)
    assert unpacked(made)[".files"] == b"0\tapp\t/etc/app.env\n"
    assert made.told == "1 plain file given"


def test_rotation_changes_values_and_keeps_the_key() -> None:
    before = make_secrets(host(sops("a")))
    after = before.rotated(host(sops("a")))
    assert after.identity == before.identity and after.values != before.values


def test_two_generations_share_a_key() -> None:
    old, new = make_secrets(host(sops("a"))), make_secrets(host(sops("a"), sops("b")))
    both = old.beside(new)
    assert [secret.name for secret in both.secrets] == ["a", "b"]
    assert both.identity == old.identity
    assert texts(both, "a") == texts(old, "a") and texts(both, "b") == texts(new, "b")


def test_real_secrets_bring_their_key_alone(tmp_path: Path) -> None:
    (tmp_path / "k").write_text(str(pyrage.x25519.Identity.generate()))
    key = RealKey.parse(tmp_path / "k")
    made = make_secrets(host(sops("a")), real=key)
    assert key.form == "age" and not made.keepable
    assert unpacked(made).keys() == {"key", ".files"}
    assert made.texts_of(made.secrets[0]) == () and "real" in made.told


def test_a_real_key_is_a_private_key(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("ssh-ed25519 AAAA public")
    with pytest.raises(SettingsError, match="no private key"):
        RealKey.parse(tmp_path / "k")


@pytest.mark.parametrize("text", ["a", "=b", "a=", ":a=b"])
def test_malformed_options_are_told(text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="NAME=FILE") as caught:
        GivenSecret.parse(text, cwd=tmp_path)
    assert caught.value.remedy


def test_a_value_needs_a_declaration(tmp_path: Path) -> None:
    given = [GivenSecret.parse("web:b=kind:hex", cwd=tmp_path)]
    check_declared(given, {"other": ["a"]})
    check_declared(given, {"web": ["b"]})
    with pytest.raises(SettingsError, match="no such secret") as caught:
        check_declared(given, {"web": ["a"]})
    assert "declared: a" in caught.value.remedy
    with pytest.raises(SecretError, match="'b'"):
        make_secrets(host(sops("a")), offered={"b": b"x"})


def test_the_cache_holds_no_object_that_json_cannot(tmp_path: Path) -> None:
    made = make_secrets(host(sops("a"), age("b")), cache=EvaluationCache(directory=tmp_path / "c"))
    (kept,) = (tmp_path / "c").glob("*.json")
    assert json.loads(kept.read_text())["content"]["values"] == made.values


def test_text_at_a_path_is_read_and_replaced() -> None:
    kinds = [GivenSecret(host="", name="/etc/wg.key", kind=Kind.WIREGUARD_KEY)]
    made = make_secrets(host(sops("a", key="b/c"), age("d")), given=kinds, offered={"d": b"mine"})
    for path in ("/run/secrets/a", "/run/agenix/d", "/etc/wg.key"):
        other = made.with_text(path, "another")
        assert (made.at(path), other.at(path)) == (made.at(path), "another")
        assert made.at(path) not in (None, "another")
        assert other.digest != made.digest
    assert made.with_text("/run/secrets/a", "x").values["sops:a"] == {"b": {"c": "x"}}
    assert [made.is_given(p) for p in ("/run/agenix/d", "/run/secrets/a")] == [True, False]
    assert made.at("/nowhere") is None
