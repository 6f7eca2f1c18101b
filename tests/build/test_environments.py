"""What differs between two images, as it is found in their layers."""

import pytest

from container_kernel.build.environments import Environments, Side
from container_kernel.build.step import Setting, Shell

pytestmark = pytest.mark.privileged


@pytest.fixture
def differ(bench, unique):
    """What changed from the image of one script to that of another on top of it."""

    def differ(before, after, *more):
        bench.build("one", Shell(f"{unique}\n{before}", net="none"))
        old = bench.image()
        bench.build("two", Shell(f"{unique}\n{after}", net="none"), *more)
        known = Environments(bench.workbench.host, bench.workbench.store)
        sides = Side("old", old), Side("new", bench.image())
        return known.compare(*sides), known.compare(*reversed(sides))

    return differ


def told(found):
    return {change.path: change.kind for change in found.files}


MAKE = "mkdir -p /d/e; echo 1 > /d/e/f; echo 1 > /d/g; ln -s g /d/l"


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("echo 2 > /d/g", {"/d/g": "changed"}),
        ("echo 1 > /d/g", {}),
        ("rm -r /d/e", {"/d/e": "removed"}),
        ("rm -r /d/e; mkdir /d/e; echo 1 > /d/e/h", {"/d/e/f": "removed", "/d/e/h": "added"}),
        ("rm -r /d/e; echo 1 > /d/e", {"/d/e": "changed"}),
        ("chmod 600 /d/g", {"/d/g": "changed"}),
        ("chown 3:4 /d/g", {"/d/g": "changed"}),
        ("ln -sf e /d/l", {"/d/l": "changed"}),
        ("mkdir -p /n/a; echo 1 > /n/a/b; echo 1 > /n/c", {"/n": "added"}),
    ],
)
def test_files_are_told_of_both_ways(differ, after, expected):
    there, back = differ(MAKE, after)
    other = {"added": "removed", "removed": "added", "changed": "changed"}
    assert told(there) == expected
    assert told(back) == {path: other[kind] for path, kind in expected.items()}


def test_a_folder_that_is_new_is_told_of_once_with_its_weight(differ):
    there, _ = differ(MAKE, "mkdir -p /n/a; echo 123 > /n/a/b; echo 1 > /n/c")
    (change,) = there.files
    assert (change.after.files, change.after.size_bytes) == (2, 6)


def test_settings_and_packages_are_told_of_by_name(differ):
    status = "mkdir -p /var/lib/dpkg; printf 'Package: a\\nStatus: install ok installed\\n"
    there, back = differ(
        status + "Version: 1\\n' > /var/lib/dpkg/status",
        status + "Version: 2\\n' > /var/lib/dpkg/status",
        Setting("env", ("A=1",)),
    )
    assert there.packages == {("deb", "a"): ("1", "2")}
    assert there.settings == {"env A": (None, "1")}
    assert back.settings == {"env A": ("1", None)}
