"""Ranges of configured numbers, refused by name."""


def at_least(name: str, value: int | float, least: int | float) -> None:
    """Raises ValueError unless a number is `least` or more.

    Example:
        >>> at_least("steps", 0, 1)
        Traceback (most recent call last):
        ...
        ValueError: steps: 0, expected 1 or more
    """
    if not value >= least:  # NaN is refused too
        raise ValueError(f"{name}: {value}, expected {least} or more")


def positive(name: str, value: int | float) -> None:
    """Raises ValueError unless a number is finite and above 0."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}: {value}, expected a positive number")


def share(name: str, value: int | float) -> None:
    """Raises ValueError unless a number is from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: {value}, expected a share from 0 to 1")
