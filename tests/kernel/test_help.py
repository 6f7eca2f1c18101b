import pytest

from container_kernel.kernel.commands import MAGICS
from container_kernel.kernel.help import complete, folder, help, help_at

NAMES = {
    "stage": lambda prefix: ["main", "test"],
    "tag": lambda prefix: ["iris:1.0", "debian:bookworm"],
    "path": lambda prefix: ["data.csv", "data/"],
}


@pytest.mark.parametrize("name", MAGICS)
def test_help_shows_every_flag_and_the_example(name):
    text = help(name)
    assert all(flag.usage in text for flag in MAGICS[name].flags)
    assert MAGICS[name].example.splitlines()[0] in text
    assert all(len(line) <= 80 for line in text.split("Example:")[0].splitlines())


def test_help_of_nothing_lists_all():
    text = help()
    assert all(magic.sign in text for magic in MAGICS.values())


def test_help_of_a_group_is_that_of_its_members():
    assert "%image save" in help("image")
    assert "%image load" in help("%image")


@pytest.mark.parametrize(
    ("name", "said"), [("pipp", "is it %pip?"), ("zzz", "see %help"), ("image sav", "%image save")]
)
def test_help_of_a_slip_says_what_is_near(name, said):
    assert said in help(name)


@pytest.mark.parametrize(
    ("code", "cursor", "begins"),
    [
        ("%pip pandas", 2, "%pip "),
        ("?%pip", 5, "%pip "),
        ("# x\n%image save a", 14, "%image save"),
        ("%%build --name x\nls", 3, "%%build"),
    ],
)
def test_help_is_found_at_the_cursor(code, cursor, begins):
    assert help_at(code, cursor).startswith(begins)


@pytest.mark.parametrize("code", ["x", "%timeit x", "a % b", ""])
def test_no_help_for_what_is_not_ours(code):
    assert help_at(code, len(code)) is None


def matches(code, **options):
    found = complete(code, len(code), NAMES, **options)
    return found and found.matches


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("%im", ("%image", "%images")),
        ("  %pi", ("%pip",)),
        ("%%", ("%%build", "%%run", "%%sh")),
        ("%pip --up", ("--upgrade",)),
        ("%%build --net ", ("apt", "host", "none", "npm", "pasta", "python")),
        ("%%build --net=h", ("host",)),
        ("%use t", ("test",)),
        ("%use ", ("main", "test")),
        ("%copy --from ma", ("main",)),
        ("%copy data", ("data.csv", "data/")),
        ("%pip -r d", ("data.csv", "data/")),
        ("%image s", ("save",)),
        ("%image rm i", ("iris:1.0",)),
        ("%image save a --format o", ("oci-archive", "oci")),
        ("%help ent", ("entrypoint",)),
        ("%pip pan", ()),
        ("%apt curl\n%use te", ("test",)),
        ("%%build\nls -", ()),
    ],
)
def test_tab_completes(code, expected):
    assert matches(code, inner_magics=frozenset()) == expected


def test_tab_offers_ipythons_magics_too():
    assert "%timeit" in matches("%ti")
    assert "%%timeit" in matches("%%ti")


@pytest.mark.parametrize("code", ["import o", "x = %p", "%timeit x", "%zzz", "%%html\n<p"])
def test_tab_is_the_inner_kernels_elsewhere(code):
    assert matches(code) is None


def test_a_completion_says_what_it_replaces():
    found = complete("%layers\n%use te", 15, NAMES)
    assert (found.start, found.end) == (13, 15)
    found = complete("%layers\n  %us", 13, NAMES)
    assert (found.start, found.end) == (10, 13)


def test_a_folder_completes_paths_inside_itself(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").touch()
    (tmp_path / ".hidden").touch()
    paths = folder(tmp_path)
    assert list(paths("")) == ["data/"]
    assert list(paths("data/")) == ["data/a.csv"]
    assert list(paths(".h")) == [".hidden"]
    assert list(paths("nowhere/x")) == []
    assert list(paths("/e")) == list(paths("../")) == []
