"""What went wrong by no fault of the program."""
import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """What was asked for cannot be done as it was asked: a flag, a config key, a file, a run that diverged.

    The message is for the person who asked: it names the key, flag or file, what was expected and what was found.
    Commands print it without a traceback; every other exception but those of the operating system is a bug.
    """


def hint(name: str, known: Iterable[str], *, all_known: bool = True) -> str:
    """What to say after an unknown name: ", did you mean 'x'?"; where none is near, all known ones, or nothing."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f", did you mean '{near[0]}'?"
    return f'; there are {", ".join(known)}' if known and all_known else ''
