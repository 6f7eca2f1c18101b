"""SBOM: an image's packages as a bill of materials, in SPDX 2.3 or CycloneDX 1.6.

The document depends on the image only: its number is made from the image's digest, its time is the
time the image's files have. Licences are what packages say of themselves; where that is no licence
of SPDX's list it is kept as their own words.
"""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from .. import __version__
from ..errors import HostError
from ..oci.digest import Digest
from ..record import record
from .installed import Package

_TOOL = "container-kernel"


@record
class Contents:
    """What a bill is about: an image by name and digest, its packages, and its time."""

    name: str
    digest: Digest
    packages: Sequence[Package]
    epoch: int

    @property
    def created(self) -> datetime:
        """The time of the image."""
        return datetime.fromtimestamp(self.epoch, UTC)

    @property
    def distinct(self) -> dict[str, Package]:
        """The packages by package URL: one that lies in two places is named once."""
        return {package.purl: package for package in self.packages}


def write(contents: Contents, form: str) -> str:
    """The bill in ``form``, one of `FORMATS`.

    Raises:
        HostError: the libraries that write it are not installed.
    """
    try:
        return FORMATS[form](contents)
    except ImportError as error:
        raise HostError(
            f"bills of materials need {error.name}, which is not installed",
            hint="pip install 'container-kernel[sbom]'",
        ) from error


def _cyclonedx(contents: Contents) -> str:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import Tool
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    image = Component(
        name=contents.name,
        version=str(contents.digest),
        type=ComponentType.CONTAINER,
        bom_ref=str(contents.digest),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=contents.digest.hex)],
    )
    licence_of = LicenseFactory().make_from_string
    packages = [
        Component(
            name=package.name,
            version=package.version,
            bom_ref=purl,
            purl=PackageURL.from_string(purl),
            licenses=[licence_of(package.licence)] if package.licence else (),
        )
        for purl, package in contents.distinct.items()
    ]
    bom = Bom(
        components=packages,
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, str(contents.digest)),
        metadata=BomMetaData(
            component=image,
            timestamp=contents.created,
            tools=[Tool(name=_TOOL, version=__version__)],
        ),
    )
    bom.register_dependency(image, packages)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _spdx(contents: Contents) -> str:
    from spdx_tools.spdx.model import Actor, ActorType, CreationInfo, Document
    from spdx_tools.spdx.writer.json import json_writer

    about = CreationInfo(
        spdx_version="SPDX-2.3",
        spdx_id="SPDXRef-DOCUMENT",
        name=contents.name,
        document_namespace=f"urn:{_TOOL}:sbom:{contents.digest}",
        creators=[Actor(ActorType.TOOL, f"{_TOOL}-{__version__}")],
        created=contents.created.replace(tzinfo=None),
    )
    packages, relationships = _spdx_packages(contents)
    document = Document(about, packages=packages, relationships=relationships)
    text = io.StringIO()
    json_writer.write_document_to_stream(document, text)
    return text.getvalue() + "\n"


def _spdx_packages(contents: Contents) -> tuple[list[Any], list[Any]]:
    """The image and what it contains, and how they are related."""
    from spdx_tools.spdx.model import (
        Checksum,
        ChecksumAlgorithm,
        ExternalPackageRef,
        ExternalPackageRefCategory,
        PackagePurpose,
        Relationship,
        RelationshipType,
        SpdxNoAssertion,
    )
    from spdx_tools.spdx.model import Package as SpdxPackage

    image = SpdxPackage(
        "SPDXRef-image",
        contents.name,
        SpdxNoAssertion(),
        version=str(contents.digest),
        files_analyzed=False,
        checksums=[Checksum(ChecksumAlgorithm.SHA256, contents.digest.hex)],
        primary_package_purpose=PackagePurpose.CONTAINER,
    )
    described = Relationship("SPDXRef-DOCUMENT", RelationshipType.DESCRIBES, image.spdx_id)
    packages, relationships = [image], [described]
    for number, (purl, package) in enumerate(contents.distinct.items(), 1):
        name = re.sub(r"[^A-Za-z0-9.-]", "-", f"{package.kind}-{package.name}-{number}")
        locator = ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", purl)
        packages.append(
            SpdxPackage(
                f"SPDXRef-{name}",
                package.name,
                package.url or SpdxNoAssertion(),
                version=package.version,
                files_analyzed=False,
                external_references=[locator],
                **_spdx_licence(package.licence),
            )
        )
        contained = (image.spdx_id, RelationshipType.CONTAINS, packages[-1].spdx_id)
        relationships.append(Relationship(*contained))
    return packages, relationships


def _spdx_licence(licence: str) -> dict[str, Any]:
    from license_expression import ExpressionError
    from spdx_tools.common.spdx_licensing import spdx_licensing
    from spdx_tools.spdx.model import SpdxNoAssertion

    if not licence:
        return {}
    try:
        return {"license_declared": spdx_licensing.parse(licence, validate=True)}
    except ExpressionError:
        return {"license_declared": SpdxNoAssertion(), "license_comment": licence}


FORMATS: dict[str, Callable[[Contents], str]] = {"spdx": _spdx, "cyclonedx": _cyclonedx}
"""What writes a bill, by the name of the format."""
