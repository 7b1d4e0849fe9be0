"""The one exception of the data part."""

from pathlib import Path


class DataError(ValueError):
    """Data on disk is not what it must be: says which file, why, and what to do.

    Args:
        file: The offending file or folder.
        reason: What is wrong with it and, where something can be done, what.

    Example:
        >>> str(DataError("scene0000_00.sens", "ends inside frame 12: download it again"))
        'scene0000_00.sens: ends inside frame 12: download it again'
    """

    def __init__(self, file: str | Path, reason: str):
        super().__init__(str(file), reason)
        self.file = str(file)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"
