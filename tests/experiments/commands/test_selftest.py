"""The self-test passes a trained judge, and neither an untrained one nor one whose input is silence."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import experiments.commands.selftest
from experiments.commands.selftest import DAMAGES, add_noise, gets_worse, low_pass, run_selftest, shuffle_time
from experiments.scoring.metrics import JUDGED
from mntp.metrics.networks.judge import Judge
from mntp.metrics.score_sets import EmbeddedScores
from tests.experiments.scoring.toy_network import write_sounds


class Deaf(Judge):
    """Embeds everything as silence."""

    def embed(self, waveform: Tensor) -> dict[str, Tensor]:
        return super().embed(torch.zeros_like(waveform))


@pytest.fixture(autouse=True)
def few_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments.commands.selftest, "NUM_CLIPS", 40)


def failures(shown: str) -> list[str]:
    return [line for line in shown.splitlines() if "FAILED" in line]


def test_a_trained_judge_is_believed(judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_selftest(EmbeddedScores(judge), None, None, 0, 32)
    shown = capsys.readouterr().out
    assert code == 0, shown
    assert "N = 40 clips" in shown and EmbeddedScores(judge).fingerprint() in shown
    assert not failures(shown) and shown.count("ok") >= 2 + 3 * 4 + 2


def test_a_deaf_judge_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    judge = Deaf(["rain", "wind", "dog"]).eval()
    assert run_selftest(EmbeddedScores(judge), None, None, 0, 32) == 1
    found = failures(capsys.readouterr().out)
    for score in JUDGED["embedded"]:
        assert any(score in line for line in found)


def test_an_untrained_judge_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    judge = Judge(["rain", "wind", "dog"]).eval()
    assert run_selftest(EmbeddedScores(judge), None, None, 0, 32) == 1
    assert any("text_judge" in line for line in failures(capsys.readouterr().out))


def test_captions_that_lack_a_file_are_refused(judge: Judge, tmp_path: Path) -> None:
    write_sounds(tmp_path / "a", 3)
    table = tmp_path / "captions.csv"
    table.write_text("file,caption\n000.wav,rain\n002.wav,wind\n")
    with pytest.raises(ValueError, match=r"captions\.csv: no caption for 1 clips, the first is 001"):
        run_selftest(EmbeddedScores(judge), tmp_path / "a", table, 0, 32)


@pytest.mark.parametrize(
    ("values", "holds"),
    [
        ([0.0, 1.0, 2.0, 3.0], True),
        ([0.0, -0.1, 2.0, 3.0], True),  # too mild to tell
        ([0.0, -0.2, 2.0, 3.0], False),
        ([0.0, 5.0, 2.0, 3.0], False),
        ([1.0, 1.0, 1.0, 1.0], False),
        ([3.0, 2.0, 1.0, 0.0], False),
        ([0.0, 1.0, float("nan"), 3.0], False),
    ],
)
def test_worse_is_worse_step_by_step(values: list[float], holds: bool) -> None:
    assert gets_worse("fd", values) == holds
    assert gets_worse("clap", [-value for value in values]) == holds


def test_damages_do_what_they_say() -> None:
    clip = torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    for decibels in DAMAGES["noise"][1]:
        noise = add_noise(clip, decibels, "a.wav") - clip
        assert 20 * (clip.std() / noise.std()).log10() == pytest.approx(decibels, abs=0.2)
    for cutoff in DAMAGES["low-pass"][1]:
        spectrum = torch.fft.rfft(low_pass(clip, cutoff, "")).abs().square()  # bins of 1 Hz
        octave = slice(round(4 * cutoff * 0.9), round(4 * cutoff * 1.1))
        below = slice(1, round(cutoff / 4))
        assert 10 * (spectrum[octave].mean() / spectrum[below].mean()).log10() < -35
    shuffled = shuffle_time(clip, 0.1, "a.wav")
    assert torch.equal(shuffled.sort().values, clip.sort().values) and not torch.equal(shuffled, clip)
    assert {tuple(piece[:3].tolist()) for piece in shuffled.split(1600)} == {
        tuple(piece[:3].tolist()) for piece in clip.split(1600)
    }
    assert not torch.equal(add_noise(clip, 5.0, "a.wav"), add_noise(clip, 5.0, "b.wav"))
