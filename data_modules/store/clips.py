"""`clips.csv`: the table of a store's clips."""

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

from mntp.io.storage import Folder

CLIPS = "clips.csv"


@dataclass(frozen=True)
class ClipRow:
    """One row of `clips.csv`: a window of a sound, with its caption.

    Attributes:
        id: unique and safe as a file name.
        file: the source's name of the whole sound.
        caption: what is heard.
        split: `train`, `val` or `test`.
        seconds: of sound in the window; the rest is padding.
        start: of the window in the sound, in seconds.
    """

    id: str
    file: str
    caption: str
    split: str
    seconds: float
    start: float


def read_clips(folder: Folder) -> list[ClipRow]:
    """Read the clips of a store, in the shards' order.

    Raises:
        ValueError: there is no such table, or it is malformed.
    """
    try:
        text = io.StringIO(folder.read_bytes(CLIPS).decode(), newline="")
        return [_as_clip(row) for row in csv.DictReader(text)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / CLIPS}: not the clips of a store ({error})") from error


def clips_as_csv(clips: Sequence[ClipRow]) -> bytes:
    """Return the content of `clips.csv`, with seconds that read back exactly."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(ClipRow)])
    writer.writerows(astuple(clip) for clip in clips)
    return text.getvalue().encode()


def _as_clip(row: dict[str, str]) -> ClipRow:
    seconds, start = float(row["seconds"]), float(row["start"])
    return ClipRow(row["id"], row["file"], row["caption"], row["split"], seconds, start)
