"""What a Nix file says by its syntax."""

from __future__ import annotations

import pytest

from pytest_nixos.standards.sources.nix_source import impure_references, unhashed_fetches

PINNED = [
    'fetchurl { url = "https://example.org/${version}/x.tar.gz"; hash = "sha256-x"; }',
    "pkgs.fetchFromGitHub { inherit (source) owner repo rev hash; }",
    'builtins.fetchGit { url = "https://example.org"; inherit rev; }',
    'fetchurl rec { name = "a"; url = "https://example.org/${name}"; sha256 = lib.fakeSha256; }',
    'pkgs.fetchpatch { url = "x"; postFetch = \'\' sed "s/{}/}/" \'\'; "sha256" = "x"; }',
    "fetchTarball { url = lock.${name}.url; sha256 = lock.${name}.narHash; }",
]
UNKNOWN = [
    "fetchurl source",
    "fetchTarball (sources.nixpkgs // { })",
    "map fetchurl urls",
    "fetchzip (args // { hash = x; })",
    "callPackage fetchurl",
]
SILENT = [
    '# fetchurl { url = "https://example.org"; }',
    '/* builtins.fetchTarball "https://example.org" */ 1',
    '"fetchurl { url = 1; }"',
    "''\n  builtins.fetchTarball \"https://example.org\"\n''",
    "{ fetchurl, fetchzip }: 1",
]
LOOSE = {
    'builtins.fetchTarball "https://example.org/x.tar.gz"': "fetchTarball",
    "builtins.fetchTarball https://example.org/x.tar.gz": "fetchTarball",
    'fetchGit { url = "https://example.org"; ref = "main"; }': "fetchGit",
    'pkgs.fetchurl { url = "https://example.org/${hash}"; }': "fetchurl",
    'fetchzip { url = x; meta.hash = "no"; }': "fetchzip",
    'fetchurl { url = "a"; # hash = "b";\n }': "fetchurl",
    '"in a string: ${builtins.fetchTarball "https://example.org"}"': "fetchTarball",
}


@pytest.mark.parametrize("text", PINNED + UNKNOWN + SILENT)
def test_fetches_that_are_fixed_or_decided_elsewhere(text: str) -> None:
    assert unhashed_fetches(f"{{ a = {text};\n}}") == []


@pytest.mark.parametrize(("text", "name"), LOOSE.items())
def test_fetches_that_nothing_fixes(text: str, name: str) -> None:
    (place,) = unhashed_fetches(f"{{\n  a = {text};\n}}")
    assert (place.line, place.what) == (2, name)


def test_references_to_what_is_the_machines() -> None:
    found = impure_references(
        '{ a = import <nixpkgs> { };\n  b = builtins.getEnv "HOME";\n  # <nixpkgs>\n'
        '  c = "builtins.currentTime <nixpkgs>";\n  d = builtins.currentSystem or "x";\n'
        "  e = builtins.readFile ./a; f = a < b && c > d; }"
    )
    assert [(place.line, place.what) for place in found] == [
        (1, "<nixpkgs>"),
        (2, "builtins.getEnv"),
        (5, "builtins.currentSystem"),
    ]


def test_a_broken_or_deep_file_is_read_as_far_as_it_goes() -> None:
    assert unhashed_fetches('{ a = fetchurl "x"; b = ') != []
    assert unhashed_fetches("[" * 20_000) == []
