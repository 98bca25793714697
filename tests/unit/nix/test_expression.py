import json
from importlib import resources
from pathlib import Path

import pytest
import tree_sitter_nix
from tree_sitter import Language, Parser

import pytest_nixos.nix
from pytest_nixos.errors import SettingsError
from pytest_nixos.machine.channel.protocol import guest_script
from pytest_nixos.nix.command.refs import nix_quote
from pytest_nixos.nix.config.host_facts import host_facts
from pytest_nixos.nix.expression import (
    Instrumentation,
    evaluation_expression,
    expression_sources,
    generation_expression,
    option_names,
)
from pytest_nixos.standards.judging.decides import where_paths
from pytest_nixos.standards.load import load_catalogue
from tests.support.config_only import asked_options

SMALL = Instrumentation(channel_script="exec cat")


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("zramSwap", ("zramSwap",)),
        ("services.openssh.enable", ("services", "openssh", "enable")),
        ('boot.kernel.sysctl."vm.swappiness"', ("boot", "kernel", "sysctl", "vm.swappiness")),
        ('fileSystems."/".device', ("fileSystems", "/", "device")),
        ('"a.b"', ("a.b",)),
    ],
)
def test_option_names(path: str, names: tuple[str, ...]) -> None:
    assert option_names(path) == names


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", 'a."b', 'a."b"c', 'a.b"c', 'a.""'])
def test_malformed_option_paths(path: str) -> None:
    with pytest.raises(SettingsError, match="write it as in a module"):
        option_names(path)


def test_data_travels_as_json_text_that_nix_cannot_interpolate() -> None:
    evil = Instrumentation(channel_script='echo "${HOME}" \\ \'\' ${builtins.abort "x"}')
    text = evaluation_expression('h"${x}', backend="vm", instrumentation=evil, options=[("a", "b")])
    line = next(line for line in text.splitlines() if "fromJSON" in line)
    literal = line.partition("fromJSON ")[2].removesuffix(";")
    request = {
        "host": 'h"${x}',
        "salt": 'h"${x}',
        "backend": "vm",
        "snapshot": False,
        "standIn": False,
        "secrets": {"mode": "test", "files": False},
        "tunnels": None,
        "ownDisks": False,
        "instrumentation": {
            "channelScript": evil.channel_script,
            "memoryMiB": None,
            "cores": None,
            "restrictNetwork": True,
        },
        "options": [["a", "b"]],
        "facts": {name: list(option_names(fact.path)) for name, fact in host_facts().items()},
        "where": [],
        "skippedFacts": [],
        "refuseImage": False,
    }
    assert literal == nix_quote(json.dumps(request))
    assert "${" not in literal.replace("\\${", "")


def test_delta_is_taken_as_nix() -> None:
    text = generation_expression(
        "h", backend="vm", instrumentation=SMALL, delta='{ environment.etc.x.text = "y"; }'
    )
    assert '{ environment.etc.x.text = "y"; }' in text


def test_too_long_an_expression_is_refused_before_the_kernel_does() -> None:
    big = Instrumentation(channel_script="x" * 140_000)
    with pytest.raises(SettingsError, match="fewer options"):
        evaluation_expression("h", backend="vm", instrumentation=big, options=[])


def test_500_options_fit() -> None:
    options = [("services", "openssh", "settings", f"SomeRatherLongOption{n}") for n in range(500)]
    script = Instrumentation(channel_script="x" * 20_000)
    evaluation_expression("h", backend="vm", instrumentation=script, options=options)


def test_every_reader_of_the_expression_is_for_a_fact_that_is_declared() -> None:
    text = (resources.files("pytest_nixos.nix") / "expressions" / "facts.nix").read_text()
    body = text.rpartition("  readers = {\n")[2].partition("\n  };\n")[0]
    named = {line.partition(" =")[0].strip() for line in body.splitlines() if line[4:5].isalpha()}
    assert named
    assert named <= set(host_facts())


def test_the_texts_import_nothing() -> None:
    for name, text in expression_sources().items():
        code = "\n".join(line.partition("#")[0] for line in text.splitlines())
        if name == "file-hosts.nix":  # of a file, which no pure evaluation reads
            assert code.count("import ") == code.count("import <nixpkgs/nixos/lib/") == 1
        elif name == "home-hosts.nix":  # of the packages that a home is made with
            assert code.count("import ") == code.count("import (home.pkgs.path + ") == 1
        else:
            assert "import " not in code, name
        assert "./" not in code, name


@pytest.mark.parametrize("name", sorted(expression_sources()))
def test_leaving_out_comments_changes_nothing(name: str) -> None:
    whole = (Path(pytest_nixos.nix.__file__).parent / "expressions" / name).read_text()
    assert words_of(whole) == words_of(expression_sources()[name])
    assert len(expression_sources()[name]) < len(whole)


def words_of(text: str) -> list[bytes | None]:
    """Return the words of a Nix expression, and the pieces of its strings, without comments."""
    words, nodes = [], [Parser(Language(tree_sitter_nix.language())).parse(text.encode()).root_node]
    while nodes:
        node = nodes.pop()
        if node.type != "comment":
            nodes += reversed(node.children)
            words += [] if node.children else [node.text]
    return words


def test_all_that_the_bundled_controls_ask_for_fits_with_room_for_a_delta() -> None:
    controls = tuple(load_catalogue().controls.values())
    text = evaluation_expression(
        "a-host-with-a-long-name",
        backend="auto",
        instrumentation=Instrumentation(channel_script=guest_script()),
        options=[option_names(path) for path in asked_options(controls)],
        where=where_paths(controls),
    )
    assert len(text.encode()) < 112 * 1024
