"""Platform: what an image runs on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from ..record import field, record
from .fields import Fields, present


@record
class Platform:
    """What an image runs on."""

    architecture: str
    os: str
    variant: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def of(cls, value: object, what: str) -> Self:
        """Read it out of a parsed document."""
        fields = Fields(value, what, ("architecture", "os", "variant"))
        return cls(
            fields.needed("architecture"), fields.needed("os"), fields.text("variant"), fields.rest
        )

    def fields(self) -> dict[str, Any]:
        """As a JSON object."""
        known = {"architecture": self.architecture, "os": self.os, "variant": self.variant}
        return {**self.extra, **present(known)}
