"""Scans of the file systems."""

from __future__ import annotations

from pathlib import Path

from pytest_nixos.observe.fact import fact_probe
from pytest_nixos.observe.filesystems.scan import SCAN_FACTS
from tests.unit.observe.here import ask, here, moved


def test_one_walk_answers_all_scans(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "open dir").mkdir(parents=True)
    (tree / "open dir").chmod(0o777)
    (tree / "sticky").mkdir()
    (tree / "sticky").chmod(0o1777)
    for name, mode in (("open", 0o666), ("setuid", 0o4755), ("plain", 0o644)):
        (tree / name).write_text("x")
        (tree / name).chmod(mode)
    wanted = ["world-writable-directories", "world-writable-files", "setuid-outside-wrappers"]
    probe = fact_probe("scan", SCAN_FACTS, wanted)
    assert probe.script.count("find / ") == 1
    assert ask(moved(probe, "find / ", f"find {tree} ")) == {
        "world-writable-directories": [f"{tree}/open dir"],
        "world-writable-files": [f"{tree}/open"],
        "setuid-outside-wrappers": [f"{tree}/setuid"],
    }


def test_secrets_of_a_history_are_told_by_file_line_and_kind(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "home/ann/.local/share/fish").mkdir(parents=True)
    (tmp_path / "root/.bash_history").write_text(
        "ls\ncurl -u admin:tr0ub4dor-and-three https://example.org\n"
        "mysql -u root -ptr0ub4dor-and-three shop\nexport TOKEN=changeme\nsystemctl status web\n"
    )
    (tmp_path / "home/ann/.zsh_history").write_text(
        ": 1700000000:0;export DB_PASSWORD=tr0ub4dor-and-three\n: 1700000001:0;man passwd\n"
    )
    (tmp_path / "home/ann/.local/share/fish/fish_history").write_text(
        "- cmd: sshpass -p tr0ub4dor-and-three ssh ann@web\n  when: 1700000000\n"
    )
    fact = SCAN_FACTS["history-secrets"]
    script = fact.command.replace("/root/", f"{tmp_path}/root/").replace(
        "/home/", f"{tmp_path}/home/"
    )
    result = here(script)
    assert result.exit_status == 0
    found = fact.parse(result.stdout_text)
    assert [line.removeprefix(str(tmp_path)).partition(":")[0] for line in found] == [
        "/root/.bash_history line 2",
        "/root/.bash_history line 3",
        "/home/ann/.zsh_history line 1",
        "/home/ann/.local/share/fish/fish_history line 1",
    ]
    assert "tr0ub4dor" not in str(found)


def test_lines_before_the_last_part_of_a_history_are_counted(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    lines = "echo 0123456789012345678901234567890123456789\n" * 10000
    (tmp_path / "root/.bash_history").write_text(f"{lines}sshpass -p tr0ub4dor-and-three ssh web\n")
    fact = SCAN_FACTS["history-secrets"]
    script = fact.command.replace("/root/", f"{tmp_path}/root/").replace(
        "/home/", f"{tmp_path}/home/"
    )
    (found,) = fact.parse(here(script).stdout_text)
    assert "line 10001: password in a command" in found
    assert here(script.replace("/root/", "/rot/")).exit_status == 3


def test_an_etc_that_is_an_overlay_needs_no_static(tmp_path: Path) -> None:
    etc, mounts = tmp_path / "etc", tmp_path / "mounts"
    etc.mkdir()
    (etc / "gone").symlink_to("/nix/store/gone")
    probe = moved(fact_probe("scan", SCAN_FACTS, ["dead-etc-links"]), "/etc", str(etc))
    probe = moved(probe, "/proc/self/mounts", str(mounts))

    mounts.write_text("/dev/vda / ext4 rw 0 0\n")
    assert ask(probe) == {"dead-etc-links": [f"{etc}/gone", f"{etc}/static"]}

    mounts.write_text(f"overlay {etc} overlay ro,lowerdir=/l 0 0\n")
    assert ask(probe) == {"dead-etc-links": [f"{etc}/gone"]}
