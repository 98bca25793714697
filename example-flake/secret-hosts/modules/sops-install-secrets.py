"""A model of sops-install-secrets, the program of sops-nix, for the tests' guests: age by the real program, AES by OpenSSL's library.

Of sops' formats it reads JSON (which is YAML too), dotenv and ini; it checks the MAC as sops does.
"""

import base64
import ctypes
import grp
import hashlib
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

CRYPTO = ctypes.CDLL("/usr/lib/x86_64-linux-gnu/libcrypto.so.3")
CRYPTO.EVP_CIPHER_CTX_new.restype = CRYPTO.EVP_aes_256_gcm.restype = ctypes.c_void_p
IV_LENGTH, SET_TAG = 0x9, 0x11


def unsealed(key: bytes, iv: bytes, data: bytes, tag: bytes, additional: bytes) -> bytes:
    context = ctypes.c_void_p(CRYPTO.EVP_CIPHER_CTX_new())
    length, out = ctypes.c_int(), ctypes.create_string_buffer(len(data) + 16)
    cipher = ctypes.c_void_p(CRYPTO.EVP_aes_256_gcm())
    assert CRYPTO.EVP_DecryptInit_ex(context, cipher, None, None, None) == 1
    assert CRYPTO.EVP_CIPHER_CTX_ctrl(context, IV_LENGTH, len(iv), None) == 1
    assert CRYPTO.EVP_DecryptInit_ex(context, None, None, key, iv) == 1
    assert (
        CRYPTO.EVP_DecryptUpdate(context, None, ctypes.byref(length), additional, len(additional))
        == 1
    )
    assert CRYPTO.EVP_DecryptUpdate(context, out, ctypes.byref(length), data, len(data)) == 1
    written = length.value
    assert CRYPTO.EVP_CIPHER_CTX_ctrl(context, SET_TAG, len(tag), tag) == 1
    if CRYPTO.EVP_DecryptFinal_ex(context, None, ctypes.byref(length)) != 1:
        raise SystemExit("sops-install-secrets: cannot decrypt: the authentication failed")
    return out.raw[:written]


def value(key: bytes, text: str, additional: str) -> bytes:
    if text == "":
        return b""
    parts = re.fullmatch(r"ENC\[AES256_GCM,data:([^,]*),iv:([^,]*),tag:([^,]*),type:str\]", text)
    data, iv, tag = (base64.b64decode(part) for part in parts.groups())
    return unsealed(key, iv, data, tag, additional.encode())


def parsed(text: str, form: str):
    if form == "dotenv":
        flat = dict(line.split("=", 1) for line in text.splitlines())
        return {k: v for k, v in flat.items() if not k.startswith("sops_")}, {
            k[5:]: v for k, v in flat.items() if k.startswith("sops_")
        }
    if form == "ini":
        tree, section = {}, None
        for line in text.splitlines():
            if line.startswith("["):
                section = tree.setdefault(line[1:-1], {})
            elif line:
                name, _, rest = line.partition(" = ")
                section[name] = rest
        return tree, tree.pop("sops")
    tree = json.loads(text)
    return tree, tree.pop("sops")


def decrypted(path: str, form: str, identity: str):
    tree, metadata = parsed(Path(path).read_text(), form)
    sealed = (
        metadata.get("age__list_0__map_enc", "").replace("\\n", "\n") or metadata["age"][0]["enc"]
    )
    done = subprocess.run(
        [os.environ["AGE"], "--decrypt", "-i", identity], input=sealed.encode(), capture_output=True
    )
    if done.returncode != 0:
        raise SystemExit(
            f"sops-install-secrets: failed to decrypt '{path}': {done.stderr.decode()}"
        )
    key, digest = done.stdout, hashlib.sha512()

    def walk(tree, path):
        plain = {}
        for name, below in tree.items():
            if isinstance(below, dict):
                plain[name] = walk(below, [*path, name])
            else:
                plain[name] = value(key, below, ":".join([*path, name]) + ":")
                digest.update(plain[name])
        return plain

    plain = walk(tree, [])
    if value(key, metadata["mac"], metadata["lastmodified"]).decode() != digest.hexdigest().upper():
        raise SystemExit(f"sops-install-secrets: failed to decrypt '{path}': MAC mismatch")
    return plain


def content(secret, identity: str) -> bytes:
    plain, form = decrypted(secret["sopsFile"], secret["format"], identity), secret["format"]
    if form == "binary":
        return plain["data"]
    if form == "dotenv":
        return b"".join(
            name.encode() + b"=" + v.replace(b"\n", b"\\n") + b"\n" for name, v in plain.items()
        )
    if form == "ini":
        return b"\n".join(
            f"[{name}]\n".encode()
            + b"".join(k.encode() + b" = " + v + b"\n" for k, v in below.items())
            for name, below in plain.items()
        )
    if secret["key"] == "":
        return json.dumps(plain, default=bytes.decode).encode()
    for name in secret["key"].split("/"):
        plain = plain[name]
    return plain


def ids(entry, ignore: bool) -> tuple[int, int]:
    if ignore:
        return 0, 0
    owner, group = entry["owner"], entry["group"]
    return (pwd.getpwnam(owner).pw_uid if owner else entry["uid"]), (
        grp.getgrnam(group).gr_gid if group else entry["gid"]
    )


def main() -> None:
    ignore = "-ignore-passwd" in sys.argv
    manifest = json.loads(Path(sys.argv[-1]).read_text())
    dry = os.environ.get("NIXOS_ACTION") == "dry-activate"
    ignore = ignore or dry
    mount, link = Path(manifest["secretsMountPoint"]), Path(manifest["symlinkPath"])
    mount.mkdir(mode=0o751, exist_ok=True)
    if not os.path.ismount(mount):
        form = "tmpfs" if manifest["useTmpfs"] else "ramfs"
        subprocess.run(
            ["mount", "-t", form, "-o", "nodev,nosuid,noexec,mode=0751", "none", mount], check=True
        )
    identity = mount / "age-keys.txt"
    identity.write_text(Path(manifest["ageKeyFile"]).read_text())
    identity.chmod(0o600)
    old = int(link.resolve().name) if link.is_symlink() else 0
    directory = mount / str(old + 1)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o751)
    values = {s["name"]: content(s, str(identity)) for s in manifest["secrets"]}
    entries = [(directory / s["name"], s, values[s["name"]]) for s in manifest["secrets"]]
    for t in manifest["templates"]:
        text = (t["content"] or Path(t["file"]).read_text()).encode()
        for name, placeholder in manifest["placeholderBySecretName"].items():
            text = text.replace(placeholder.encode(), values.get(name, b""))
        entries.append((directory / "rendered" / t["name"], t, text))
    restart = []
    for path, entry, data in entries:
        path.parent.mkdir(mode=0o751, parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(int(entry["mode"], 8))
        os.chown(path, *ids(entry, ignore))
        before = link / path.relative_to(directory)
        if link.exists() and (not before.exists() or before.read_bytes() != data):
            restart += entry["restartUnits"]
    if restart and Path("/run/nixos").is_dir():
        with open(
            "/run/nixos/dry-activation-restart-list"
            if dry
            else "/run/nixos/activation-restart-list",
            "a",
        ) as file:
            file.write("".join(f"{unit}\n" for unit in restart))
    if dry:
        return
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(directory)
    temporary.replace(link)
    for path, entry, _ in entries:
        target = link / path.relative_to(directory)
        if str(target) != entry["path"]:
            Path(entry["path"]).parent.mkdir(parents=True, exist_ok=True)
            Path(entry["path"]).unlink(missing_ok=True)
            Path(entry["path"]).symlink_to(target)
    for found in mount.iterdir():
        if found.name.isdigit() and int(found.name) <= old + 1 - manifest["keepGenerations"]:
            shutil.rmtree(found)


main()
