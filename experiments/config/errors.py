"""Users' mistakes as one line on stderr; no torch here, so that every command can start with it."""

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping

from mntp.registry import did_you_mean

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

# jsonargparse 4.53 says where and why only in prose. `test_mistakes_are_named_in_one_line` notices other words.
_KEY = re.compile(r'Parser key "([^"]+)"')
_UNKNOWN_KEY = re.compile(
    r"Option '(?P<a>[^']+)' is not accepted|Key [\"'](?P<b>[^\"']+)[\"'] is not expected|"
    r"Group '(?P<group>[^']+)' does not accept option '(?P<c>[^']+)'"
)
_MISSING = re.compile(r"the following arguments are required: ([^\n]+)")
_UNKNOWN_CLASS = re.compile(
    r"Expected a dot import path string: (\S+)|Undefined (?:class|type) '?(\S+?)'?$", re.MULTILINE
)
_NOT_IN_MODULE = re.compile(r"module '([^']+)' has no attribute '([^']+)'")
_CLASS_AS_A_WHOLE = re.compile(r"\. Got value: Namespace\(.*")
_BAD_VALUE = re.compile(r"(Expected an? (?!<class 'NoneType'>).*Got value: [^\n]*)")


def summarise_config_error(
    message: str, known_keys: Iterable[str], known_classes: Mapping[str, Iterable[str]], section: str = ""
) -> str:
    """One line for what jsonargparse says of a config.

    Args:
        message: its message, of many lines.
        known_keys: argument names to suggest for a misspelt key.
        known_classes: class names that fit, by the last part of the key that takes them.
        section: the section whose arguments were parsed by themselves, empty where the message names it.
    """
    message = _CLASS_AS_A_WHOLE.sub("", message)
    message = _NOT_IN_MODULE.sub(r"Expected a dot import path string: \1.\2", message)
    where = ".".join(filter(None, [section, *_KEY.findall(message)])) or "the top level"
    if found := _UNKNOWN_KEY.search(message):
        key = next(filter(None, (found["a"], found["b"], found["c"])))
        return f"config: '{key}' is not a key that {found['group'] or where} accepts{did_you_mean(key, known_keys)}"
    if found := _UNKNOWN_CLASS.search(message):
        return unknown_class(found[1] or found[2], where, known_classes.get(where.rpartition(".")[-1], ()))
    if found := _MISSING.search(message):
        return f"config: {where} lacks the required key '{found[1]}'"
    if found := _BAD_VALUE.search(message):
        return f"config: {where}: {found[1]}"
    return f"config: {' '.join(message.split())[:400]}"


def unknown_class(name: str, where: str, known: Iterable[str]) -> str:
    """One line for a class that a key doesn't take; it may be among the known ones and not fit here."""
    fitting = sorted(set(known) - {name})
    return (
        f"config: '{name}' is not a class that {where} accepts{did_you_mean(name, fitting)}; "
        f"expected one of {', '.join(fitting) or 'the classes of this kind'}, or the dotted path of your own class"
    )


def subclasses(base: type) -> list[type]:
    """All imported subclasses of a class, at any depth."""
    direct: list[type] = base.__subclasses__()
    return [found for cls in direct for found in (cls, *subclasses(cls))]


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
