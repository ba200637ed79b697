"""Windows of the tokenizer, joined, against the whole clip decoded at once."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from data_modules.scenes import EmbeddedCorpus
from mntp.audio.griffin_lim import griffin_lim
from mntp.audio.log_mel import LogMel, normalise
from mntp.inference.streaming import StreamingDecoder, Windows
from mntp.tokenizers import AudioLDM, MelTokenizer, Tokenizer
from mntp.tokenizers.layout import mel_layout
from tests.models import mel_tokenizer, noises
from tests.public_models import write_audioldm


class Filtered(Tokenizer):
    """Tokens are samples, heard through a filter that reaches one slice back and one ahead: windows can be exact."""

    def __init__(self) -> None:
        super().__init__()
        self.layout = mel_layout(640)

    def encode(self, waveform: Tensor) -> Tensor:
        return waveform.reshape(len(waveform), -1, self.layout.dim)

    def decode(self, tokens: Tensor) -> Tensor:
        kernel, reach = torch.tensor([[[0.4, 1.0, -0.7]]]), self.layout.samples_per_frame
        return torch.nn.functional.conv1d(tokens.flatten(1)[:, None], kernel, padding=reach, dilation=reach)[:, 0]

    def settings(self) -> dict[str, Any]:
        return {}


def pieces(tokenizer: Tokenizer, tokens: Tensor, windows: Windows, finals: Iterator[int] | None = None) -> list[Tensor]:
    """What comes while tokens become final one by one; those that aren't are noise that changes each time."""
    decoder, generator = StreamingDecoder(tokenizer, tokens.shape[1] // 4, windows), torch.Generator().manual_seed(7)
    found = []
    for num_final in finals or range(tokens.shape[1] + 1):
        seen = torch.cat([tokens[:, :num_final], torch.randn(tokens[:, num_final:].shape, generator=generator)], dim=1)
        piece = decoder.push(seen, num_final)
        if piece is not None:
            found.append(piece)
    return found


@pytest.mark.parametrize("finals", [None, [0, 9, 10, 23, 24], [24], [8, 8, 8, 24]])
def test_a_tokenizer_of_short_reach_is_exact_however_the_tokens_come(finals: Any) -> None:
    tokenizer, tokens = Filtered(), torch.randn(2, 24, 640, generator=torch.Generator().manual_seed(1))
    whole = tokenizer.decode(tokens)
    windows = Windows(context=2, lookahead=2, crossfade=256)
    torch.testing.assert_close(torch.cat(pieces(tokenizer, tokens, windows, finals), dim=1), whole, atol=1e-4, rtol=0)
    if finals is None:  # with less around it is not, so that the comparison can tell
        for narrower in (replace(windows, context=0), Windows(context=2, lookahead=1, crossfade=2560)):
            joined = torch.cat(pieces(tokenizer, tokens, narrower), dim=1)
            assert joined.shape == whole.shape
            assert (joined - whole).abs().max() > 0.1


def test_sound_comes_a_slice_at_a_time_behind_the_lookahead() -> None:
    tokens = torch.randn(1, 24, 640)
    for lookahead in (1, 2, 5, 9):
        decoder = StreamingDecoder(Filtered(), 6, Windows(lookahead=lookahead))
        first = next(n for n in range(25) if decoder.push(tokens, n) is not None)
        assert first == min(24, 4 * (1 + lookahead))  # what is said of the time to first audio
    assert [piece.shape[1] // 2560 for piece in pieces(Filtered(), tokens, Windows())] == [1, 1, 1, 3]
    assert [piece.shape[1] // 2560 for piece in pieces(Filtered(), tokens, Windows(), iter([17, 24]))] == [2, 4]


def test_numbers_out_of_range() -> None:
    for wrong in ({"context": -1}, {"lookahead": 0}, {"crossfade": -1}):
        with pytest.raises(ValueError, match="expected context from 0, crossfade from 0 and lookahead from 1"):
            Windows(**wrong)
    with pytest.raises(ValueError, match="expected a crossfade of at most 2560 samples, a frame of Filtered"):
        StreamingDecoder(Filtered(), 6, Windows(crossfade=2561))


@pytest.fixture(scope="module")
def scenes() -> tuple[MelTokenizer, Tensor]:
    """Three scenes of the embedded corpus and a tokenizer that was fitted on others."""
    corpus = EmbeddedCorpus(num_train=12, num_val=1, num_test=3, seconds=1.6)

    def clips(split: str, count: int) -> Tensor:
        return torch.stack([normalise(torch.from_numpy(corpus.scene(split, index).waveform)) for index in range(count)])

    tokenizer = MelTokenizer(32, num_griffin_lim_iterations=32)
    tokenizer.fit([clips("train", 12)])
    return tokenizer, clips("test", 3)


def differences(tokenizer: MelTokenizer, tokens: Tensor, windows: Windows) -> Tensor:
    """Root-mean-square difference [B] of the joined pieces' log-mel from the offline one's, in dB."""
    joined, whole = torch.cat(pieces(tokenizer, tokens, windows), dim=1), tokenizer.decode(tokens)
    assert joined.shape == whole.shape
    squares = (LogMel()(joined) - LogMel()(whole)).square().mean(dim=(1, 2))
    return 20 / math.log(10) * squares.sqrt()


def test_the_stated_error_of_the_mel_tokenizer(
    scenes: tuple[MelTokenizer, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """StreamingDecoder says 0.04 dB, at most 0.2; what goes wrong without phases by place, look-ahead, crossfade."""
    tokenizer, waveforms = scenes
    tokens = tokenizer.encode(waveforms)
    own_error = tokenizer.reconstruction_error(waveforms)["waveform_rmse_db"]
    stated = differences(tokenizer, tokens, Windows())
    assert stated.mean() < 0.1
    assert stated.max() < 0.4
    assert stated.max() < 0.2 * own_error
    assert differences(tokenizer, tokens, Windows(lookahead=1)).mean() > 3 * stated.mean()
    assert differences(tokenizer, tokens, Windows(crossfade=0)).max() > 2 * stated.max()
    monkeypatch.setattr(tokenizer, "decode_window", lambda window, first: tokenizer.decode(window))
    assert differences(tokenizer, tokens, Windows()).mean() > 0.5


def test_of_audioldm_the_vocoder_is_exact_and_the_vae_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = AudioLDM(str(write_audioldm(tmp_path)))
    tokens = torch.randn(1, 20, 128, generator=torch.Generator().manual_seed(0))

    def differs() -> float:
        joined, whole = torch.cat(pieces(tokenizer, tokens, Windows()), dim=1), tokenizer.decode(tokens)
        assert joined.shape == whole.shape
        return float((joined - whole).norm() / whole.norm())

    assert differs() > 0.1  # its norms average over the whole clip: what StreamingDecoder warns of

    def local(latents: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=torch.nn.functional.interpolate(latents[:, :1], scale_factor=4))

    monkeypatch.setattr(tokenizer.vae, "decode", local)
    assert differs() < 1e-4


def test_phases_go_by_the_place_in_the_clip() -> None:
    """Without iterations, a frame's spectrum is decided by its own magnitude and phase, and its neighbours'."""
    log_mel = LogMel()(noises(1, 32 * 160))
    whole = griffin_lim(log_mel, 0)
    part = griffin_lim(log_mel[:, 10:30], 0, first_frame=10)
    inside = slice(7 * 160, 13 * 160)
    torch.testing.assert_close(part[:, inside], whole[:, 1600:4800][:, inside])
    assert (griffin_lim(log_mel[:, 10:30], 0)[:, inside] - whole[:, 1600:4800][:, inside]).abs().max() > 0.01


def test_a_window_is_cut_from_whole_slices() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        mel_tokenizer().decode_window(torch.zeros(1, 6, 6), 0)
