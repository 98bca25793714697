"""Bring /etc/passwd, /etc/group and /etc/shadow in line with the declared users, and remember the numbers that were given out."""

import json
import os
import sys

STATE = "/var/lib/nixos"
SYSTEM, NORMAL = range(999, 399, -1), range(1000, 30000)


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def read_json(path: str, otherwise):
    return json.loads(read(path)) if os.path.exists(path) else otherwise


def read_colon_file(path: str) -> dict[str, list[str]]:
    if not os.path.exists(path):
        return {}
    rows = (line.split(":") for line in read(path).splitlines() if line)
    return {row[0]: row for row in rows}


def write_atomically(path: str, text: str, mode: int, gid: int = 0) -> None:
    temporary = f"{path}.tmp"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    os.chown(temporary, 0, gid)
    os.chmod(temporary, mode)
    os.replace(temporary, path)


class Numbers:
    """Numbers for users or groups: declared, in use, remembered, or the first free one."""

    def __init__(self, kind: str, existing: dict[str, int], declared: set[int]) -> None:
        self.path = f"{STATE}/{kind}-map"
        self.remembered: dict[str, int] = read_json(self.path, {})
        self.existing = existing
        self.taken = declared | set(existing.values()) | set(self.remembered.values())

    def give(self, name: str, declared: int | None, system: bool) -> int:
        if declared is not None:
            return declared
        number = self.existing.get(name, self.remembered.get(name))
        if number is None:
            number = next(n for n in (SYSTEM if system else NORMAL) if n not in self.taken)
        self.taken.add(number)
        self.remembered[name] = number
        return number

    def save(self) -> None:
        write_atomically(self.path, json.dumps(self.remembered), 0o644)


def hashed(password: str) -> str:
    import subprocess

    command = [sys.argv[2], "passwd", "-6", "-salt", os.urandom(8).hex(), "-stdin"]
    return subprocess.run(
        command, input=password, capture_output=True, text=True, check=True
    ).stdout.strip()


def password_of(user: dict, current: str | None, mutable: bool) -> str:
    if user["hashedPasswordFile"] and os.path.exists(user["hashedPasswordFile"]):
        declared = read(user["hashedPasswordFile"]).strip()
    elif user["hashedPassword"] is not None:
        declared = user["hashedPassword"]
    elif user["password"] is not None:
        declared = hashed(user["password"])
    else:
        declared = None
    if mutable and current is not None:
        return current
    if declared is not None:
        return declared
    if user["initialHashedPassword"] is not None:
        return user["initialHashedPassword"]
    if user["initialPassword"] is not None:
        return hashed(user["initialPassword"])
    return current if current is not None else "!"


def main() -> None:
    spec = read_json(sys.argv[1], None)
    mutable = spec["mutableUsers"]
    passwd, group, shadow = (
        read_colon_file(f"/etc/{name}") for name in ("passwd", "group", "shadow")
    )

    gids = Numbers(
        "gid",
        {n: int(r[2]) for n, r in group.items()},
        {g["gid"] for g in spec["groups"] if g["gid"] is not None},
    )
    groups = {
        g["name"]: (gids.give(g["name"], g["gid"], True), set(g["members"])) for g in spec["groups"]
    }
    declared_groups = read_json(f"{STATE}/declarative-groups", [])
    if mutable:
        for name, row in group.items():
            if name in groups:
                groups[name][1].update(
                    m for m in row[3].split(",") if m and name not in declared_groups
                )
            elif name not in declared_groups:
                groups[name] = (int(row[2]), {m for m in row[3].split(",") if m})
    write_atomically(
        "/etc/group",
        "".join(
            f"{n}:x:{gid}:{','.join(sorted(members))}\n"
            for n, (gid, members) in sorted(groups.items(), key=lambda i: i[1][0])
        ),
        0o644,
    )

    uids = Numbers(
        "uid",
        {n: int(r[2]) for n, r in passwd.items()},
        {u["uid"] for u in spec["users"] if u["uid"] is not None},
    )
    declared_users = read_json(f"{STATE}/declarative-users", [])
    users: dict[str, list[str]] = {}
    secrets_: dict[str, str] = {}
    for user in spec["users"]:
        name = user["name"]
        uid = uids.give(name, user["uid"], user["isSystemUser"])
        gid = groups[user["group"]][0] if user["group"] in groups else int(user["group"])
        users[name] = [
            name,
            "x",
            str(uid),
            str(gid),
            user["description"],
            user["home"],
            user["shell"],
        ]
        secrets_[name] = password_of(user, shadow[name][1] if name in shadow else None, mutable)
        if user["createHome"]:
            os.makedirs(user["home"], exist_ok=True)
            os.chown(user["home"], uid, gid)
            os.chmod(user["home"], int(user["homeMode"], 8))
    if mutable:
        for name, row in passwd.items():
            if name not in users and name not in declared_users:
                users[name] = row
                secrets_[name] = shadow[name][1] if name in shadow else "!"
    ordered = sorted(users.values(), key=lambda row: int(row[2]))
    write_atomically("/etc/passwd", "".join(":".join(row) + "\n" for row in ordered), 0o644)
    lines = []
    for row in ordered:
        old = shadow.get(row[0])
        lines.append(
            ":".join(
                [row[0], secrets_[row[0]], *(old[2:] if old else ["1", "", "", "", "", "", ""])]
            )
        )
    write_atomically("/etc/shadow", "\n".join(lines) + "\n", 0o640, groups.get("shadow", (0,))[0])
    for path in ("/etc/subuid", "/etc/subgid"):
        open(path, "a").close()
    write_atomically(
        f"{STATE}/declarative-users", json.dumps([u["name"] for u in spec["users"]]), 0o644
    )
    write_atomically(
        f"{STATE}/declarative-groups", json.dumps([g["name"] for g in spec["groups"]]), 0o644
    )
    gids.save()
    uids.save()


main()
