"""Sound while training: fixed validation prompts, generated and shown in TensorBoard and as files."""

from pathlib import Path

import lightning as L
import matplotlib.pyplot as plt
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch import Tensor

from mntp.audio.files import change_rate, write_audio
from mntp.audio.log_mel import HOP, SAMPLE_RATE, LogMel
from mntp.batch import TextStates, TokenBatch
from mntp.seeding import derive_seed
from mntp.systems import AudioSystem
from mntp.tokenizers import build_tokenizer


class SampleLogger(Callback):
    """At each validation, generates the first clips of the first batch with the averaged weights.

    Writes `step-<step>-<k>.wav` and `.png`, and audio and spectrograms to TensorBoard where it is the logger. Draws
    nothing from the global random state, so that training goes on as it would have without it.

    Args:
        num_clips: prompts to generate; 0 turns it off.
        dirpath: folder of the files; None is `samples` in the logger's folder, or else in the trainer's root folder.
    """

    def __init__(self, num_clips: int = 4, dirpath: Path | None = None) -> None:
        self.num_clips = num_clips
        self.dirpath = dirpath

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: TokenBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Generate before the first batch: by then the averaged weights are in place."""
        if batch_idx or not self.num_clips or trainer.sanity_checking or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, AudioSystem)
        if pl_module.preprocessing is None:
            return
        text = {
            name: TextStates(stream.states[: self.num_clips], stream.lengths[: self.num_clips])
            for name, stream in batch.text.items()
        }
        rows = batch.index[: self.num_clips].tolist()
        tokens = pl_module.generate(text, [derive_seed("sample", row) for row in rows])
        tokenizer = build_tokenizer(pl_module.preprocessing["tokenizer"])
        folder = self.dirpath or Path(trainer.log_dir or trainer.default_root_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        sample_rate = tokenizer.layout.sample_rate
        for number, waveform in enumerate(tokenizer.decode(tokens.cpu())):
            path = folder / f"step-{trainer.global_step:06d}-{number}.wav"
            write_audio(path, waveform, sample_rate)
            self._show(trainer, change_rate(waveform, sample_rate, SAMPLE_RATE), batch.captions[number], number, path)

    def _show(self, trainer: L.Trainer, waveform: Tensor, caption: str, number: int, path: Path) -> None:
        figure = spectrogram_figure(waveform[: len(waveform) // HOP * HOP], caption)
        figure.savefig(path.with_suffix(".png"))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                board, step = logger.experiment, trainer.global_step
                board.add_audio(f"samples/{number}", waveform.clamp(-1, 1), step, sample_rate=SAMPLE_RATE)
                board.add_text(f"captions/{number}", caption, step)
                board.add_figure(f"spectrograms/{number}", figure, step, close=False)
        plt.close(figure)


def spectrogram_figure(waveform: Tensor, title: str) -> Figure:
    """The log-mel spectrogram of a waveform [samples] at 16 kHz, in dB."""
    with torch.no_grad():
        mel = LogMel()(waveform[None])[0].numpy() * (20 / np.log(10))
    figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
    seconds = len(waveform) / SAMPLE_RATE
    image = axes.imshow(mel.T, origin="lower", aspect="auto", extent=(0, seconds, 0, mel.shape[1]), vmin=-90, vmax=20)
    figure.colorbar(image, label="dB")
    axes.set(title=title, xlabel="seconds", ylabel="mel band")
    return figure
