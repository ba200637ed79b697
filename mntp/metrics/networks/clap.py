"""The CLAP score's network: LAION's CLAP, fed as the AudioLDM toolkit's branch `passt_replace_panns` feeds it.

Without that branch's random replacement of embeddings by the one of an empty caption, which falsifies a score.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor
from torch.nn import functional as F
from torchaudio.functional import resample

from mntp.io.fingerprint import hash_text
from mntp.metrics.networks.base import AudioNetwork
from mntp.metrics.networks.read_clip import read_clip
from mntp.metrics.networks.spectrograms import DecibelMel
from mntp.pretrained.laion_clap import TEXT_TOKENIZER, embed_captions, load_laion_clap
from mntp.pretrained.precision import float32
from mntp.pretrained.text_tokenizers import load_text_tokenizer, tokenizer_facts

if TYPE_CHECKING:
    from transformers import ClapModel, PreTrainedTokenizerBase

TOOLKIT_RATE = 32_000
NUM_SAMPLES = 480_000
"""10 s: longer clips are cut at their end, shorter ones are stretched inside HTSAT, neither repeated nor padded."""


class ClapScorer(AudioNetwork):
    """Embeds sound and captions in one space; their cosine, averaged over pairs, is the CLAP score.

    The output `audio_embedding` is [B, 512] of unit length.

    Args:
        model: of `load_laion_clap`.
        tokenizer: of `load_text_tokenizer`.
    """

    sample_rate = 48_000
    outputs: ClassVar[tuple[str, ...]] = ("audio_embedding",)
    feature_version = "toolkit 32000 then 48000, first 10 s, PANNs log-mel, v1"

    def __init__(self, model: "ClapModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.log_mel = DecibelMel(self.sample_rate, num_fft=1024, hop=480, f_min=50, f_max=14_000)

    @classmethod
    def from_checkpoint(cls, path: Path, tokenizer: str | Path = TEXT_TOKENIZER) -> Self:
        """Load LAION's checkpoint, frozen and on the CPU.

        Args:
            path: such as `music_speech_audioset_epoch_15_esc_89.98.pt`.
            tokenizer: a folder with the tokenizer's files, or its name on the hub.

        Raises:
            ValueError: as `load_laion_clap` and `load_text_tokenizer`.
        """
        model = load_laion_clap(path)
        text: Any = model.config.text_config
        return cls(model, load_text_tokenizer(tokenizer, text.vocab_size)).eval()

    def fingerprint(self) -> str:
        """Return 12 hex digits over weights, code and text tokenizer: equal only for networks that score alike."""
        return hash_text(json.dumps([super().fingerprint(), tokenizer_facts(self.tokenizer)]))

    def read(self, path: Path) -> Tensor:
        """As the toolkit: `read_clip` at 32 kHz, resampled to 48 kHz, cut after 10 s."""
        return resample(read_clip(path, TOOLKIT_RATE), TOOLKIT_RATE, self.sample_rate)[:NUM_SAMPLES]

    def embed(self, waveform: Tensor) -> dict[str, Tensor]:
        """Embed the first 10 s of waveform [B, samples]."""
        log_mel = self.log_mel(waveform[:, :NUM_SAMPLES])
        pooled = self.model.audio_model(input_features=log_mel).pooler_output
        return {"audio_embedding": F.normalize(self.model.audio_projection(pooled), dim=-1)}

    def embed_text(self, captions: Sequence[str]) -> Tensor:
        """Embed captions as [n, 512] float32 of unit length, on the network's device."""
        with float32():
            return embed_captions(self.model, self.tokenizer, captions)
