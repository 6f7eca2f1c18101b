"""Provenance: what an image was built from and by what, as an in-toto statement.

The statement (in-toto Statement v1) carries SLSA's provenance predicate (slsa.dev/provenance/v1).
It is made from the recipe alone and has no times in it, so that the same image has the same one.
It is not signed: it says what this program did, to whoever trusts where it comes from.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .. import __version__
from ..oci.digest import Digest
from ..record import fields
from ..runtime.mounts import Wish
from .events import Image
from .installed import Package
from .recipe import Made, StageRecipe
from .resolved import Input
from .step import MEANING

MEDIA_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
_KINDS = {"deb": "deb", "python": "pypi", "npm": "npm"}
BUILD_TYPE = "urn:container-kernel:notebook:v1"


def statement(
    stages: Sequence[StageRecipe], packages: Sequence[Package], inputs: Sequence[Input]
) -> dict[str, Any]:
    """The statement about the image of the last of ``stages``, which has ``packages`` in it.

    ``inputs`` is what the steps are known to have taken, with digests.
    """
    *_, last = stages
    config = last.image.config
    return {
        "_type": STATEMENT,
        "subject": [{"name": last.name, "digest": _named(last.image.digest)}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "stage": last.name,
                    "stages": {stage.name: _stage(stage) for stage in stages},
                },
                "internalParameters": {
                    "platform": f"{config.os}/{config.architecture}",
                    "meaning": dict(MEANING),
                    "epoch": last.epoch,
                },
                "resolvedDependencies": [
                    *_images(stages).values(),
                    *_files(inputs),
                    *_packages(packages, inputs),
                ],
            },
            "runDetails": {
                "builder": {
                    "id": "urn:container-kernel:builder",
                    "version": {"container-kernel": __version__},
                }
            },
        },
    }


def _images(stages: Sequence[StageRecipe]) -> dict[Digest, Mapping[str, Any]]:
    """The images that were there before, each once."""
    known: dict[Digest, Mapping[str, Any]] = {}
    for stage in stages:
        for name, image in {stage.reference: stage.base, **stage.others}.items():
            known.setdefault(image.digest, _image(name, image))
    return known


def _image(name: str, image: Image) -> dict[str, Any]:
    return {"name": name, "uri": f"oci:{image.digest}", "digest": _named(image.digest)}


def _files(inputs: Sequence[Input]) -> list[dict[str, Any]]:
    """What was downloaded, each once."""
    urls = {one["url"]: one["digest"] for one in inputs if one["kind"] == "file"}
    return [{"uri": url, "digest": _digest_set(digest)} for url, digest in urls.items()]


def _packages(packages: Sequence[Package], inputs: Sequence[Input]) -> Iterator[dict[str, Any]]:
    """The packages by package URL, with the digest of the file they came in where it is known."""
    digests = {
        (_KINDS[one["kind"]], one["name"], one["version"]): one["digest"]
        for one in inputs
        if one["kind"] in _KINDS and one.get("digest")
    }
    for purl, package in {package.purl: package for package in packages}.items():
        digest = digests.get((package.kind, package.plain_name, package.version))
        yield {"uri": purl, **({"digest": _digest_set(digest)} if digest else {})}


def _digest_set(text: str) -> dict[str, str]:
    """A digest as in-toto writes it; npm's are subresource integrity, in base64."""
    algorithm, colon, value = text.partition(":")
    if not colon:
        algorithm, _, encoded = text.split()[0].partition("-")
        value = base64.b64decode(encoded).hex()
    return {algorithm: value}


def _stage(stage: StageRecipe) -> dict[str, Any]:
    return {"base": stage.reference, "steps": [_step(made) for made in stage.steps]}


def _step(made: Made) -> dict[str, Any]:
    step = made.step
    said = {name: getattr(step, name) for name in fields(type(step))}
    parts = {key: _plain(value) for key, value in said.items() if value}
    result = {"layer": str(made.layer.diff_id)} if made.layer else {}
    return {"kind": type(step).__name__.lower(), **parts, **result}


def _plain(value: object) -> object:
    """As JSON has it; a mount as it was written."""
    if not isinstance(value, tuple):
        return value
    return [one.text if isinstance(one, Wish) else one for one in value]


def _named(digest: Digest) -> dict[str, str]:
    return {"sha256": digest.hex}
