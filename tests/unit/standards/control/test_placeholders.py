"""Option values put into texts of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pytest_nixos.standards.control.placeholders import filled
from pytest_nixos.standards.control.seen import Seen, Unseen
from tests.unit.standards.samples import host_config

Json = Any


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({"a.host": "0.0.0.0", "a.port": 80}, "http://127.0.0.1:80/x"),
        ({"a.host": "::", "a.port": "81"}, "http://[::1]:81/x"),
        ({"a.port": 80}, "http://127.0.0.1:80/x"),
    ],
)
def test_templates_are_filled_from_options(options: Mapping[str, Json], url: str) -> None:
    template = "http://{a.host|127.0.0.1}:{a.port}/x"
    assert filled(template, host_config(options=dict(options))) == Seen(url)


def test_templates_refuse_what_is_no_address() -> None:
    template = "http://{a.host|127.0.0.1}:{a.port}/x"
    assert isinstance(filled(template, host_config()), Unseen)
    odd = host_config(options={"a.host": "x; rm -rf /", "a.port": 80})
    assert isinstance(filled(template, odd), Unseen)
