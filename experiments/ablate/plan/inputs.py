"""What runs depend on besides their configs: prepared data, a judge, files of weights. Each is looked at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.config.nodes import with_seed
from mntp.io.fingerprint import file_digest, hash_json

NOT_THERE = "not there"


class Inputs:
    """Fingerprints of what the cells of a plan read.

    Args:
        store: prepares the data of a resolved config and returns their fingerprint.
        judge: returns the fingerprint of the judge for a resolved config's data.
        digest: tells the content of a file of weights.
        strict: False if a plan is only looked at: what is missing then stands in `missing` and has no fingerprint.

    Attributes:
        missing: what is not there, and what to do about it.
    """

    def __init__(
        self,
        store: Callable[[dict[str, Any]], str],
        judge: Callable[[dict[str, Any]], str],
        digest: Callable[[Path], str] = file_digest,
        strict: bool = True,
    ) -> None:
        self._store, self._judge, self._digest, self._strict = store, judge, digest, strict
        self._known: dict[tuple[str, str], str] = {}
        self.missing: list[str] = []

    def data(self, config: dict[str, Any]) -> dict[str, str]:
        """Return `{"store": .., "judge": ..}` for a resolved config.

        Raises:
            ValueError: the data or the networks of the judge are not there.
        """
        section = hash_json(with_seed(config, 0)["data"])
        return {
            "store": self._once("store", section, lambda: self._store(config)),
            "judge": self._once("judge", section, lambda: self._judge(config)),
        }

    def weights(self, file: str, row: str) -> str:
        """Return the digest of a file of initial weights.

        Args:
            file: its path.
            row: who starts from it, for the error.

        Raises:
            ValueError: it can't be read.
        """

        def digest() -> str:
            try:
                return self._digest(Path(file))
            except OSError as error:
                raise ValueError(
                    f"{row} starts from the weights {file}, which can't be read ({error.strerror}): put them there, or "
                    "set `init: null` in its base config for random ones"
                ) from error

        return self._once("weights", file, digest)

    def _once(self, kind: str, key: str, find: Callable[[], str]) -> str:
        if (kind, key) not in self._known:
            try:
                self._known[kind, key] = find()
            except (ValueError, OSError) as error:
                if self._strict:
                    raise
                self._known[kind, key] = NOT_THERE
                if str(error) not in self.missing:
                    self.missing.append(str(error))
        return self._known[kind, key]
