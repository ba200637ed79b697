"""The embedded corpus as the source of a store."""

from typing import Any

import torch

from data_modules.corpora.base import ClipSize, Finding, Row, Source, Window, Windows
from data_modules.scenes import EmbeddedCorpus
from data_modules.scenes.instruments import SAMPLE_RATE
from data_modules.store.clips import ClipRow
from mntp.audio.files import change_rate
from mntp.audio.log_mel import fit_length, normalise


class EmbeddedSource(Source):
    """The embedded corpus: every scene is one clip."""

    def __init__(self, corpus: EmbeddedCorpus) -> None:
        self.corpus = corpus
        self.rows = [
            Row(id=f"{split}-{index:05d}", file=f"{split}/{index}", split=split)
            for split, count in corpus.splits().items()
            for index in range(count)
        ]

    def settings(self) -> dict[str, Any]:
        """The corpus' own settings."""
        return {"kind": "embedded corpus", **self.corpus.settings()}

    def stamp(self, row: Row) -> Any:
        """The corpus' own settings."""
        return self.corpus.settings()

    def inspect(self, row: Row, size: ClipSize) -> Finding:
        """One clip, known without synthesising it."""
        return Finding(windows=1)

    def read(self, row: Row, size: ClipSize) -> Windows:
        """Synthesise one scene."""
        scene = self.corpus.scene(row.split, int(row.file.rpartition("/")[2]))
        seconds = len(scene.waveform) / SAMPLE_RATE
        waveform = change_rate(torch.from_numpy(scene.waveform), SAMPLE_RATE, size.sample_rate)
        clip = ClipRow(row.id, row.file, scene.caption, row.split, seconds, start=0.0)
        return Windows([Window(clip, fit_length(normalise(waveform), size.samples))])
