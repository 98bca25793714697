"""What is kept holds no secret, and all else as it was."""

from __future__ import annotations

from pytest_nixos.secrets.redact import redact_json, redact_texts

TOKEN = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
WORD = "Kx92jf8Qwe7zLm"


def test_a_secret_goes_and_the_rest_stays() -> None:
    texts = [
        ("", "a plain line\n"),
        ("unit", f'[Service]\nEnvironment="DB_PASSWORD={WORD}"\nExecStart=/bin/x\n'),
        ("", f"password = {WORD}"),
        ("arguments", f"/bin/x --token {TOKEN}"),
    ]
    assert redact_texts(texts) == [
        "a plain line\n",
        '[Service]\nEnvironment="DB_PASSWORD=REDACTED"\nExecStart=/bin/x\n',
        "password = REDACTED",
        "/bin/x --token REDACTED",
    ]


def test_what_one_text_tells_is_known_in_the_others() -> None:
    assert redact_texts([("", f"password = {WORD}"), ("", f"started with {WORD}")]) == [
        "password = REDACTED",
        "started with REDACTED",
    ]


def test_an_option_tells_by_its_name() -> None:
    options = {
        "a": {"path": "services.x.password", "state": "present", "value": WORD},
        "b": {"path": "services.x.user", "state": "present", "value": "alice"},
        "numbers": [1, None, True, {"n": 2.5}],
    }
    assert redact_json(options) == {
        **options,
        "a": {"path": "services.x.password", "state": "present", "value": "REDACTED"},
    }


def test_what_looks_like_a_sample_may_be_none() -> None:
    token = "ghp_0123456789abcdefghijABCDEFGHIJ456789"
    assert redact_texts([("", f"password = {token}"), ("", "password = changeme")]) == [
        "password = REDACTED",
        "password = changeme",
    ]
