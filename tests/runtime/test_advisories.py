"""Known faults, by version."""

import pytest

from container_kernel.runtime.advisories import ADVISORIES, open_in


@pytest.mark.parametrize(
    ("program", "version", "expected", "others"),
    [
        ("crun", (1, 8, 1), {"CVE-2024-21626", "CVE-2026-30892", "CVE-2026-47766"}, {"2019"}),
        ("crun", (1, 28), set(), {"CVE"}),
        ("runc", (1, 1, 5), {"CVE-2024-21626", "CVE-2024-45310", "CVE-2025-52881"}, {"2023"}),
        ("runc", (1, 1, 14), {"CVE-2025-31133"}, {"CVE-2024"}),
        ("runc", (1, 2, 8), {"CVE-2026-41579"}, {"CVE-2025"}),
        ("runc", (1, 3, 6), set(), {"CVE"}),
        ("runc", (1, 4), {"CVE-2026-41579"}, {"CVE-2025"}),
        ("Linux", (5, 10, 96), {"CVE-2022-0492"}, {"2023"}),
        ("Linux", (5, 15, 91), set(), {"CVE"}),
        ("Linux", (6, 1, 8), {"CVE-2023-0386"}, {"2022"}),
        ("Linux", (6, 18, 44), set(), {"CVE"}),
    ],
)
def test_row_174_a_version_has_what_is_not_mended_in_its_branch(program, version, expected, others):
    found = {one.cve for one in open_in(program, version)}
    assert expected <= found
    assert not any(other in cve for other in others for cve in found)


def test_an_unknown_version_is_not_accused():
    assert open_in("crun", ()) == []
    assert open_in("youki", (0, 1)) == []


def test_each_says_what_is_done_about_it():
    assert all(one.about and one.cve.startswith("CVE-") for one in ADVISORIES)
