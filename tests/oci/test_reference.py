"""References: the grammar registries use."""

from __future__ import annotations

import random
import shutil
import subprocess

import pytest

from container_kernel.errors import ImageError
from container_kernel.oci.digest import Digest
from container_kernel.oci.reference import Reference

DIGEST = str(Digest.of(b""))


@pytest.mark.parametrize(
    ("text", "registry", "path", "tag"),
    [
        ("debian", "", "debian", ""),
        ("debian:bookworm", "", "debian", "bookworm"),
        ("library/debian:1.0_a-b", "", "library/debian", "1.0_a-b"),
        ("localhost/x", "localhost", "x", ""),
        ("localhost:5000/x:v1", "localhost:5000", "x", "v1"),
        ("example.org/a/b/c", "example.org", "a/b/c", ""),
        ("[::1]:5000/x", "[::1]:5000", "x", ""),
        ("UPPER/x", "UPPER", "x", ""),
        ("a__b/c--d/e.f", "", "a__b/c--d/e.f", ""),
        ("123/x", "", "123/x", ""),
    ],
)
def test_good_references(text, registry, path, tag):
    found = Reference.parse(text)
    assert (found.registry, found.path, found.tag, str(found)) == (registry, path, tag, text)


def test_a_digest_may_follow_a_tag():
    found = Reference.parse(f"debian:12@{DIGEST}")
    assert (found.tag, str(found.digest), str(found)) == ("12", DIGEST, f"debian:12@{DIGEST}")
    assert found.with_default_tag() == found


def test_the_default_tag_is_latest():
    assert str(Reference.parse("debian").with_default_tag()) == "debian:latest"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ":",
            "/",
            "a/",
            "/a",
            "a//b",
            "Debian",
            "debian:",
            "debian: x",
            "debian:-x",
            "-a",
            "a-",
        ),
        *(
            "a._b",
            "a___b",
            "a.",
            f"debian:{'t' * 129}",
            "a" * 256,
            "debian@sha256:12",
            "debian@",
            "dé",
        ),
        *(
            f"x@{DIGEST}@{DIGEST}",
            f"x@{DIGEST.upper()}",
            "../x",
            "x\n",
            "exa mple.org/x",
            "-a.org/x",
        ),
        *("x:a:b", "[::1]5/x", "example.org:/x", "example.org:port/x"),
    ],
)
def test_bad_references(text):
    with pytest.raises(ImageError, match="no image reference"):
        Reference.parse(text)


HOSTS = ["", "localhost/", "localhost:5000/", "example.org/", "EXAMPLE.org:1/", "[::1]:5000/"]
HOSTS += ["[fe80::1%eth0]/", "[::1/", "a.b./", "-a.org/", "a_b.org/", "a..b/", "xn--e1afmkfd.org/"]
PARTS = ["a", "a/b", "a.b", "a__b", "a--b", "a.-b", "A", "a/B", "a//b", "a/", ".a", "a" * 240]
PARTS += ["a" * 256, "\u0430", "a\uff0fb", "a\u200b", "0", "_a", "a_", "..", "a/../b", "f" * 64, ""]
TAGS = ["", ":1", ":A.b-c_d", ":", ":-a", ":.a", ":" + "t" * 128, ":" + "t" * 129, ":\u0430"]
DIGESTS = ["", "", "", f"@{DIGEST}", "@sha256:12", f"@{DIGEST.upper()}", "@"]
NAMES = 200


def names():
    """References of all sorts, the same ones each time: about half of them are right."""
    chance = random.Random(102)

    def part(some):
        return chance.choice(some if chance.random() < 0.3 else some[:2])

    return ["".join(map(part, (HOSTS, PARTS, TAGS, DIGESTS))) for _ in range(NAMES)]


def refusal_of_skopeo(name):
    """It reads a destination's name before it looks for the source, which is not there."""
    argv = ["skopeo", "copy", "dir:/nonexistent", f"docker://{name}"]
    said = subprocess.run(argv, capture_output=True, text=True, check=False).stderr
    return "" if "/nonexistent/manifest.json" in said else said


def refusal(name):
    try:
        Reference.parse(name)
    except ImageError as error:
        return error.message
    return ""


def is_known_to_differ(name, ours, theirs):
    """We take a tag beside a digest, and IPv6 hosts as newer skopeos do; no host is called a_b."""
    return "both a tag and digest" in theirs or "[::1]:" in name or "'a_b.org' is no" in ours


def test_row_102_names_get_the_verdict_that_skopeo_gives():
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    verdicts = [(name, refusal(name), refusal_of_skopeo(name)) for name in names()]
    differing = [one for one in verdicts if bool(one[1]) != bool(one[2])]
    assert [one for one in differing if not is_known_to_differ(*one)] == []
    assert len(differing) < NAMES / 10
    assert NAMES / 3 < sum(bool(ours) for _, ours, _ in verdicts) < NAMES * 2 / 3
