"""The image spec's own tables of right and wrong documents: our verdict is theirs (row D 62).

They come with Debian's package golang-github-opencontainers-image-spec-dev, as tests in Go.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from container_kernel.errors import ImageError
from container_kernel.oci.spec import Descriptor, ImageConfig, Index, Manifest
from container_kernel.oci.strict_json import parse
from container_kernel.transfer.intake import check_counts, check_types
from container_kernel.transfer.load import check_layout

TABLES = Path("/usr/share/gocode/src/github.com/opencontainers/image-spec/schema")
ENTRY = re.compile(
    r"(config|descriptor|imageIndex|imageLayout|manifest|imageconfig): `(.*?)`,"
    r"(?:\s*strict:\s*\w+,)?(?:\s*fail:\s*(\w+),)?",
    re.DOTALL,
)

STRICTER = ("not a sha256 digest", "it is no image: its config is")
"""What the spec allows and we refuse, by name: digests of other kinds, and what is no image."""


def documents():
    """Each document of the tables: its kind, its bytes, whether it is wrong."""
    for path in sorted(TABLES.glob("*_test.go")):
        for number, (kind, data, fail) in enumerate(ENTRY.findall(path.read_text()), 1):
            name = f"{path.stem.removesuffix('_test')} {number}"
            yield pytest.param(kind, data.encode(), fail == "true", id=name)


def digests(manifest):
    return tuple(layer.digest for layer in manifest.layers)


def read(kind, data):
    """Read it as `load` would."""
    match kind:
        case "descriptor":
            Descriptor.of(parse(data, kind), kind)
        case "imageIndex":
            Index.from_json(data)
        case "imageLayout":
            check_layout(data)
        case "manifest":
            manifest = Manifest.from_json(data)
            check_types(manifest)
            check_counts(len(manifest.layers), ImageConfig("", "", diff_ids=digests(manifest)))
        case _:
            ImageConfig.from_json(data)


def verdict(kind, data):
    """Why it is refused; nothing if it is not."""
    try:
        read(kind, data)
    except ImageError as error:
        return error.message
    return ""


@pytest.mark.skipif(not TABLES.is_dir(), reason=f"{TABLES} is not there")
@pytest.mark.parametrize(("kind", "data", "is_wrong"), documents())
def test_row_62_our_verdict_is_the_image_specs(kind, data, is_wrong):
    said = verdict(kind, data)
    assert bool(said) == is_wrong or any(why in said for why in STRICTER)


@pytest.mark.skipif(not TABLES.is_dir(), reason=f"{TABLES} is not there")
def test_row_62_the_tables_are_read():
    verdicts = [case.values[2] for case in documents()]
    assert verdicts.count(True) >= 30
    assert verdicts.count(False) >= 20
