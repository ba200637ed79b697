"""`--import my_package`, an option of every command: names in files may lead to classes of that package."""

from argparse import ArgumentParser

from mntp.registry import allow_imports


def take_imports(words: list[str]) -> list[str]:
    """Import the packages that `--import` names (it may come several times), and return the other words.

    Raises:
        ValueError: a package can't be imported.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--import", action="append", default=[], dest="packages")
    if not any(word == "--import" or word.startswith("--import=") for word in words):
        return words
    named, others = parser.parse_known_args(words)
    allow_imports(named.packages)
    return others
