"""References: the grammar registries use."""

from __future__ import annotations

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
