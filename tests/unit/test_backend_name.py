"""One list of ways in which a machine runs, whatever word names it."""

from __future__ import annotations

import pytest

from pytest_nixos.backend_name import EVERYWHERE, BackendName


@pytest.mark.parametrize("name", BackendName)
def test_each_is_found_by_its_word_and_by_its_place(name: BackendName) -> None:
    assert BackendName.named(name.value) is name
    assert BackendName.named(name.place).place == name.place


def test_a_live_host_is_bare_metal_in_the_catalogue() -> None:
    assert BackendName.named("bare-metal") is BackendName.SSH
    assert {name.place for name in EVERYWHERE} == {"vm", "container", "bare-metal"}


def test_other_words_are_refused() -> None:
    with pytest.raises(ValueError, match="lxc"):
        BackendName.named("lxc")
