"""Users' mistakes as one line on stderr; no torch here, so that every command can start with it."""

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping

from mntp.registry import did_you_mean

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

# What is left of jsonargparse's nested message once its own scaffolding is taken away.
_KEY = re.compile(r'Parser key "([^"]+)"')
_UNKNOWN_KEY = re.compile(
    r"Option '(?P<a>[^']+)' is not accepted|Key [\"'](?P<b>[^\"']+)[\"'] is not expected|"
    r"Group '(?P<group>[^']+)' does not accept option '(?P<c>[^']+)'"
)
_MISSING = re.compile(r"the following arguments are required: ([^\n]+)")
_UNKNOWN_CLASS = re.compile(
    r"Expected a dot import path string: (\S+)|Undefined (?:class|type) '?(\S+?)'?$", re.MULTILINE
)
_CLASS_AS_A_WHOLE = re.compile(r"\. Got value: Namespace\(.*")
_BAD_VALUE = re.compile(r"(Expected an? (?!<class 'NoneType'>).*Got value: [^\n]*)")


def summarise_config_error(message: str, known_keys: Iterable[str], known_classes: Mapping[str, Iterable[str]]) -> str:
    """One line for what jsonargparse says of a config.

    Args:
        message: its message, of many lines.
        known_keys: argument names to suggest for a misspelt key.
        known_classes: class names that fit, by the last part of the key that takes them.
    """
    message = _CLASS_AS_A_WHOLE.sub("", message)
    where = ".".join(_KEY.findall(message))
    if found := _UNKNOWN_KEY.search(message):
        key, place = found["a"] or found["b"] or found["c"], found["group"] or where or "the top level"
        return f"config: '{key}' is not a key that {place} accepts{did_you_mean(key, known_keys)}"
    if found := _UNKNOWN_CLASS.search(message):
        name = found[1] or found[2]
        fitting = sorted(set(known_classes.get(where.rpartition(".")[-1], ())) - {name})  # known, but not fitting here
        return (
            f"config: '{name}' is not a class that {where} accepts{did_you_mean(name, fitting)}; "
            f"expected one of {', '.join(fitting) or 'the classes of this kind'}"
        )
    if found := _MISSING.search(message):
        return f"config: {where or 'the top level'} lacks the required key '{found[1]}'"
    if found := _BAD_VALUE.search(message):
        return f"config: {where}: {found[1]}"
    return "config: " + " ".join(message.split())[:400]


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turn what a user can mend into one line and an exit code; anything else keeps its traceback."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept, run the same command again to go on", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_INTERRUPTED)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_USER_ERROR)
