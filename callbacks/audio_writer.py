"""`lightning predict` as sound files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from mntp.audio.files import write_audio
from mntp.batch import TokenBatch
from mntp.systems import AudioSystem
from mntp.tokenizers import build_tokenizer


class AudioWriter(BasePredictionWriter):
    """Writes each predicted clip as `predictions/<row>.wav` in the logger's folder, or the trainer's root folder."""

    def __init__(self) -> None:
        super().__init__(write_interval="batch")

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Build the tokenizer once; a public model is loaded with it."""
        assert isinstance(pl_module, AudioSystem)
        assert pl_module.preprocessing is not None
        self._tokenizer = build_tokenizer(pl_module.preprocessing["tokenizer"])

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Tensor,
        batch_indices: Sequence[int] | None,
        batch: TokenBatch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> Any:
        """Decode and write one batch of tokens [B, N, D]."""
        folder = Path(trainer.log_dir or trainer.default_root_dir) / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        for row, waveform in zip(batch.index.tolist(), self._tokenizer.decode(prediction.cpu()), strict=True):
            write_audio(folder / f"{row:06d}.wav", waveform, self._tokenizer.layout.sample_rate)
