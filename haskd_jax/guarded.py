"""Commands that say in a line what their users can mend."""

import sys
from collections.abc import Callable


def guarded(command: str, run: Callable[[], int]) -> int:
    """Runs a command; what users can mend is said in a line, without a traceback.

    Args:
        command: Its name.
        run: Gives the exit code.

    Returns:
        The exit code; 2 after such an error.
    """
    try:
        return run()
    except (ValueError, OSError) as error:
        print(f"haskd {command}: {error}", file=sys.stderr)
        return 2
