"""The end of a log, to show beside a failure; no state is concluded from it."""

from pathlib import Path

TAIL_LINES = 8
TAIL_BYTES = 16_384


def last_lines(path: Path, offset: int = 0) -> list[str]:
    """Return the last lines after the byte `offset`, [] if there are none; reads at most the last 16 KiB."""
    try:
        with path.open("rb") as file:
            file.seek(max(offset, path.stat().st_size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-TAIL_LINES:]
