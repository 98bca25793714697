"""PAM: each service by its own stack, includes taken in."""

from __future__ import annotations

from pathlib import Path

from pytest_nixos.backend_name import BackendName
from pytest_nixos.findings import Outcome
from pytest_nixos.observe.accounts.pam import PamService, pam
from pytest_nixos.standards.judging.judge import Verdict, judge
from pytest_nixos.standards.load import load_catalogue
from tests.unit.observe.here import ask, moved, parsed
from tests.unit.standards.samples import host_config, parse_pam

UNIX = "auth sufficient pam_unix.so likeauth try_first_pass\n"
DENY = "auth required pam_deny.so\n"
LOCKING = (
    "auth required pam_faillock.so preauth deny=3 fail_interval=900\n"
    f"{UNIX}auth [default=die] /nix/store/x/lib/security/pam_faillock.so authfail deny=3 fail_interval=900\n{DENY}"
)


def services(**files: str) -> dict[str, PamService]:
    found = parse_pam({name.replace("_", "-"): text for name, text in files.items()})
    assert found is not None
    return dict(found)


def verdict(control: str, **files: str) -> Verdict:
    seen = {"pam": services(**files)}
    return judge(load_catalogue().control(control), host_config(), seen, BackendName.VM)


def test_what_is_included_counts_where_it_stands() -> None:
    found = services(login=LOCKING, greetd="auth substack login\n@include common\n", common=UNIX)
    assert found["greetd"].faillock == {
        "preauth": True, "authfail": True, "deny": 3, "fail_interval": 900,
    }  # fmt: skip
    assert [r.file for r in found["greetd"].auth] == ["login"] * 4 + ["common"]


def test_an_include_of_itself_ends() -> None:
    assert services(a=f"auth include a\n{UNIX}")["a"].asks_strangers


def test_every_service_at_which_a_password_is_guessed_has_to_lock() -> None:
    right = verdict("AUTH-011", login=LOCKING, su=LOCKING, passwd=UNIX + DENY)
    assert right.outcome is Outcome.PASSED
    wrong = verdict("AUTH-011", login=LOCKING, sshd=LOCKING, su=UNIX + DENY, polkit_1=UNIX + DENY)
    assert wrong.outcome is Outcome.FAILED
    assert "/etc/pam.d/su preauth is false" in wrong.reason
    assert "/etc/pam.d/polkit-1" in wrong.reason and "login" not in wrong.reason


def test_faillock_after_the_password_is_a_dead_letter() -> None:
    text = f"{UNIX}auth required pam_faillock.so preauth deny=3\n{DENY}"
    assert services(login=text)["login"].faillock["preauth"] is False


def test_faillock_conf_says_what_the_line_does_not() -> None:
    text = (
        f"=service login\nauth required pam_faillock.so preauth\n{UNIX}\n"
        "=faillock\n# deny = 3\ndeny = 9\n=complete\n"
    )
    found = parsed(pam(), text)
    assert found is not None and found["login"].faillock["deny"] == 9


def test_an_empty_password_is_let_in_by_any_service() -> None:
    loose = "auth sufficient pam_unix.so \\\n  nullok try_first_pass\n"
    wrong = verdict("AUTH-028", login=UNIX, xlock=loose)
    assert wrong.outcome is Outcome.FAILED and "/etc/pam.d/xlock" in wrong.reason
    new_password = (
        f"{UNIX}password sufficient pam_unix.so nullok yescrypt\n# auth pam_unix.so nullok\n"
    )
    assert verdict("AUTH-028", login=new_password).outcome is Outcome.PASSED


def test_a_delay_of_one_service_says_nothing_of_another() -> None:
    slow = f"auth optional pam_faildelay.so delay=4000000\n{UNIX}"
    assert verdict("AUTH-015", login=slow, su=slow).outcome is Outcome.PASSED
    wrong = verdict("AUTH-015", login=slow, su=UNIX, vlock="auth required pam_unix.so nodelay\n")
    assert wrong.outcome is Outcome.FAILED
    assert "/etc/pam.d/su is 2" in wrong.reason and "/etc/pam.d/vlock is 0" in wrong.reason


def test_wheel_has_to_be_asked_for_before_the_password() -> None:
    wheel = "auth required pam_wheel.so use_uid\n"
    assert services(su=f"auth sufficient pam_rootok.so\n{wheel}{UNIX}")["su"].wants_wheel
    assert not services(su=f"{UNIX}{wheel}{DENY}")["su"].wants_wheel
    assert not services(su=f"auth optional pam_wheel.so\n{UNIX}")["su"].wants_wheel


def test_the_quality_of_passwords_is_what_their_stack_asks_for() -> None:
    conf = "minlen=15\ndifok=8\nucredit=-1\nlcredit=-1\ndcredit=-1\nocredit=-1\ndictcheck=1\n"
    unix = "password sufficient pam_unix.so nullok yescrypt\n"

    def quality(stack: str) -> Verdict:
        seen = {"pam": parse_pam({"passwd": stack}, conf)}
        return judge(load_catalogue().control("AUTH-012"), host_config(), seen, BackendName.VM)

    asked = "password requisite pam_pwquality.so\n"
    assert quality(asked + unix).outcome is Outcome.PASSED
    # Nothing asks for what the file says, or too late; an argument beats the file.
    assert quality(unix).outcome is Outcome.FAILED
    assert quality(unix + asked).outcome is Outcome.FAILED
    weaker = quality(f"password requisite pam_pwquality.so minlen=6\n{unix}")
    assert "minlen is 6" in weaker.reason


def test_a_cut_answer_is_none() -> None:
    assert parsed(pam(), "=service login\nauth required pam_unix.so\n") is None


def test_this_machine_is_read(tmp_path: Path) -> None:
    (tmp_path / "login").write_text(LOCKING)
    found = ask(moved(pam(), "/etc/pam.d/", f"{tmp_path}/"))
    assert found is not None and list(found) == ["login"]
    assert found["login"].asks_strangers and found["login"].accepts_nothing is None
