from pathlib import Path

import pytest

from pytest_nixos.errors import SettingsError
from pytest_nixos.nix.command.refs import FlakeRef, HostRef, HostSelection, NixosTestRef, nix_quote


@pytest.fixture
def flake_dir(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "flake.nix").write_text("{ }")
    return tmp_path


@pytest.mark.parametrize("text", ["", "."])
def test_dot_is_the_current_directory(flake_dir: Path, text: str) -> None:
    assert FlakeRef.parse(text, cwd=flake_dir).url == str(flake_dir)


@pytest.mark.parametrize("text", ["sub", "./sub", "sub/", "sub/../sub"])
def test_relative_paths_become_absolute(flake_dir: Path, text: str) -> None:
    assert FlakeRef.parse(text, cwd=flake_dir).url == str(flake_dir / "sub")


def test_parent_directory(flake_dir: Path) -> None:
    assert FlakeRef.parse("..", cwd=flake_dir / "sub").url == str(flake_dir)


@pytest.mark.parametrize(
    "text",
    [
        "github:owner/repo",
        "github:owner/repo/branch?dir=x",
        "git+https://example.org/x.git?ref=main",
        "git+ssh://git@example.org/x",
        "https://example.org/x.tar.gz",
        "nixpkgs",
        "nixpkgs/nixos-24.05",
        "flake:nixpkgs",
        "path:/abs",
        "git+file:///abs?dir=x",
    ],
)
def test_urls_and_registry_names_stay(flake_dir: Path, text: str) -> None:
    assert FlakeRef.parse(text, cwd=flake_dir).url == text


def test_relative_path_urls_become_absolute_and_keep_their_parameters(flake_dir: Path) -> None:
    assert FlakeRef.parse("path:sub", cwd=flake_dir).url == f"path:{flake_dir}/sub"
    assert FlakeRef.parse("path:.?dir=sub", cwd=flake_dir).url == f"path:{flake_dir}?dir=sub"
    assert FlakeRef.parse("git+file:.", cwd=flake_dir).url == f"git+file:{flake_dir}"


def test_registry_name_loses_to_a_directory_with_a_flake(flake_dir: Path) -> None:
    assert FlakeRef.parse("sub", cwd=flake_dir).url.endswith("/sub")
    assert FlakeRef.parse("sub", cwd=flake_dir / "sub").url == "sub"


@pytest.mark.parametrize(
    ("text", "attr"),
    [
        (".#web", "web"),
        ("#web", "web"),
        (".#web.example.org", "web.example.org"),
        (".#nixosConfigurations.web-1", "web-1"),
        ('.#"web.example.org"', "web.example.org"),
        ('.#nixosConfigurations."web.example.org"', "web.example.org"),
        (".", None),
    ],
)
def test_host_names_are_one_name(flake_dir: Path, text: str, attr: str | None) -> None:
    selection = HostSelection.parse(text, cwd=flake_dir)
    assert (selection.flake.url, selection.attr) == (str(flake_dir), attr)
    assert (selection.host is None) == (attr is None)


@pytest.mark.parametrize("text", [".#", ".#a#b", ".#nixosConfigurations."])
def test_malformed_selection_names_a_remedy(flake_dir: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="remedy: write REF#HOST"):
        HostSelection.parse(text, cwd=flake_dir)


@pytest.mark.parametrize(
    "name", ["nixosConfigurations.q", '"q"', "a#b", "a\\", "${x}", "a\nb", "n"]
)
def test_any_name_in_quotes_is_itself(flake_dir: Path, name: str) -> None:
    assert HostSelection.parse(f".#{nix_quote(name)}", cwd=flake_dir).attr == name
    shown = str(HostRef(FlakeRef.parse(".", cwd=flake_dir), name))
    assert HostSelection.parse(shown, cwd=flake_dir).attr == name


def test_the_config_is_an_attribute_path_with_the_name_quoted() -> None:
    host = HostRef(FlakeRef("/f"), "web.example-1.org")
    assert host.config == 'nixosConfigurations."web.example-1.org".config'
    assert str(host) == "/f#web.example-1.org"
    node = HostRef(NixosTestRef("/f", "checks.x86_64-linux.mytest"), "web-1")
    assert node.config == 'checks.x86_64-linux.mytest.nodes."web-1"'


@pytest.mark.parametrize(
    ("text", "attribute", "node"),
    [
        (".#checks.x86_64-linux.mytest", "checks.x86_64-linux.mytest", None),
        (".#checks.x86_64-linux.mytest.nodes.web", "checks.x86_64-linux.mytest", "web"),
        ('.#hydraJobs."my.test".nodes."web.1"', 'hydraJobs."my.test"', "web.1"),
        ("#mytest", "mytest", None),
    ],
)
def test_a_nixos_test_is_an_output_and_its_nodes_are_hosts(
    flake_dir: Path, text: str, attribute: str, node: str | None
) -> None:
    selection = HostSelection.parse_test(text, cwd=flake_dir)
    assert selection == HostSelection(NixosTestRef(str(flake_dir), attribute), node)
    # Commands about the flake name the flake, and two tests are two.
    assert str(selection.flake) == str(flake_dir)
    assert selection.flake != FlakeRef(str(flake_dir))
    assert selection.flake != NixosTestRef(str(flake_dir), "other")


def test_a_node_bears_its_tests_name() -> None:
    test = NixosTestRef("/f", 'checks.x86_64-linux."mytest"')
    assert HostRef(test, "web").name == "mytest.web"
    assert str(HostRef(test, "web")) == '/f#checks.x86_64-linux."mytest".nodes.web'


@pytest.mark.parametrize("text", [".", ".#", "", ".#a#b", ".#.nodes.web"])
def test_no_test_is_refused(flake_dir: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="names no test"):
        HostSelection.parse_test(text, cwd=flake_dir)


def test_specialisation_is_shown_as_typed_and_asked_of_nix_by_its_path() -> None:
    host = HostRef(FlakeRef("/f"), "a.b^gaming")
    assert str(host) == "/f#a.b^gaming"
    assert host.config == ('nixosConfigurations."a.b".config.specialisation."gaming".configuration')


def test_nix_quote_leaves_nothing_to_interpolate() -> None:
    assert nix_quote('a"b\\c${d}$') == '"a\\"b\\\\c\\${d}$"'
