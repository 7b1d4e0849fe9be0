"""What tells one plain value from another in a record."""

import hashlib
import json
from collections.abc import Mapping
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


def differing(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Where two records differ.

    Args:
        one: Plain values by name, dictionaries of such among them.
        other: Likewise.
        prefix: Begins every name.

    Returns:
        The names of the values that differ, with their path, sorted.

    Example:
        >>> differing({"seed": 0, "train": {"steps": 8}}, {"seed": 1, "train": {"steps": 9}})
        ['seed', 'train.steps']
    """
    names = []
    for name in sorted(one.keys() | other.keys()):
        a, b = one.get(name), other.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            names += differing(a, b, f"{prefix}{name}.")
        elif a != b:
            names.append(f"{prefix}{name}")
    return names
