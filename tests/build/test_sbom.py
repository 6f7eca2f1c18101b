"""Bills of materials: valid, reproducible, and about what is in the image."""

import json

import pytest

from container_kernel.build import sbom
from container_kernel.build.sbom import Contents
from container_kernel.oci.digest import Digest
from tests.build.test_installed import FOUND

pytest.importorskip("cyclonedx", reason="the extra `sbom` is not installed")
pytest.importorskip("spdx_tools", reason="the extra `sbom` is not installed")

CONTENTS = Contents("made:here", Digest.of(b"image"), (*FOUND, *FOUND[:2]), 1686355200)
PURLS = {package.purl for package in FOUND}


def test_cyclonedx_is_valid_by_its_librarys_validator():
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = sbom.write(CONTENTS, "cyclonedx")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    assert {one["purl"] for one in found["components"]} == PURLS
    licences = {one["name"]: one.get("licenses") for one in found["components"]}
    assert licences["left"] == [{"license": {"id": "ISC"}}]
    assert licences["jq"] == [{"license": {"name": "Expat and MIT"}}]
    assert licences["in"] is None
    assert found["metadata"]["component"]["version"] == str(CONTENTS.digest)


def test_spdx_is_valid_by_its_librarys_validator(tmp_path):
    from spdx_tools.spdx.parser.parse_anything import parse_file
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    path = tmp_path / "sbom.spdx.json"
    path.write_text(sbom.write(CONTENTS, "spdx"))
    document = parse_file(str(path))
    assert validate_full_spdx_document(document) == []
    locators = [r.locator for one in document.packages for r in one.external_references]
    assert sorted(locators) == sorted(PURLS)
    by_name = {one.name: one for one in document.packages}
    assert str(by_name["two"].license_declared) == "Apache-2.0"
    assert by_name["jq"].license_comment == "Expat and MIT"
    assert by_name["two"].download_location == "https://example.org/two.whl"


@pytest.mark.parametrize("form", sbom.FORMATS)
def test_the_same_image_has_the_same_bill(form):
    text = sbom.write(CONTENTS, form)
    assert text == sbom.write(CONTENTS, form)
    assert "2023-06-10T00:00:00" in text


@pytest.mark.parametrize("form", sbom.FORMATS)
def test_an_image_without_packages_has_a_bill_too(form):
    found = json.loads(sbom.write(Contents("busybox", Digest.of(b"image"), (), 0), form))
    assert "made" not in str(found.get("components", ""))
