"""JSON objects in what strangers wrote."""

from __future__ import annotations

import json
from typing import Any

Dict = dict[str, Any]


def parse_object(data: bytes | str) -> Dict:
    """The JSON object in ``data``, or an empty one for whatever else is there."""
    return object_in(data) or {}


def object_in(data: bytes | str) -> Dict | None:
    """The JSON object in ``data``, or None."""
    # Only UTF-8, as jupyter_client reads it: what json takes for UTF-16 nobody else understands.
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
