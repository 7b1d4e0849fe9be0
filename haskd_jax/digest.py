"""What tells one plain value from another in a record."""

import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """A short name of a value that another value does not share.

    Args:
        value: Lists, dictionaries, strings and numbers, as JSON has them.

    Returns:
        16 hexadecimal digits, of SHA-256; the order of dictionaries does not matter.

    Raises:
        TypeError: JSON has no such value.

    Example:
        >>> digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
        True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
