import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import experiments.evaluate
from experiments.evaluate import SCORES, evaluate, evaluate_folders
from mntp.audio import normalise, read_audio, write_audio
from tests.experiments.conftest import SMALL_CORPUS

NUM_CLIPS = SMALL_CORPUS.num_test


def name(index: int) -> str:
    return f"{index:03d}.wav"


@pytest.fixture(scope="module")
def captions() -> dict[str, str]:
    return {name(i): SMALL_CORPUS.scene("test", i).caption for i in range(NUM_CLIPS)}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    for i in range(NUM_CLIPS):
        write_audio(folder / name(i), normalise(torch.from_numpy(SMALL_CORPUS.scene("test", i).waveform)))
    return folder


@pytest.fixture
def generated(reference, tmp_path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(reference, tmp_path / "generated"))


@pytest.fixture(scope="module")
def noisy_scores(judge, reference, captions, tmp_path_factory) -> list[dict[str, float]]:
    """Scores at rising levels of white noise: none, then 20, 10, 0 and -10 dB of signal over noise."""
    scores = []
    generator = torch.Generator().manual_seed(0)
    noise = {path.name: torch.randn(40_960, generator=generator) for path in sorted(reference.iterdir())}
    for level in (0.0, 0.1, 10**-0.5, 1.0, 10**0.5):
        folder = tmp_path_factory.mktemp("noisy")
        for path in reference.iterdir():
            clean = read_audio(path)
            write_audio(folder / path.name, normalise(clean + level * clean.std() * noise[path.name]))
        scores.append(evaluate_folders(reference, folder, captions, judge))
    return scores


def test_identical_sets_give_exactly_zero(judge, reference, captions):
    scores = evaluate_folders(reference, reference, captions, judge)
    assert scores["fd_judge"] == 0.0
    assert scores["kl_judge"] == 0.0
    assert 1 < scores["is_judge"] < len(judge.classes)
    assert scores["num_clips"] == NUM_CLIPS


@pytest.mark.parametrize(("score", "sign"), [("fd_judge", 1), ("kl_judge", 1), ("is_judge", -1), ("text_judge", -1)])
def test_more_noise_is_worse(noisy_scores, score, sign):
    values = [sign * scores[score] for scores in noisy_scores]
    assert values == sorted(values) and len(set(values)) == len(values)


def test_shuffled_captions_lower_the_text_score_only(judge, reference, captions):
    shuffled = {name(i): captions[name((i + 1) % NUM_CLIPS)] for i in range(NUM_CLIPS)}
    right = evaluate_folders(reference, reference, captions, judge)
    wrong = evaluate_folders(reference, reference, shuffled, judge)
    assert wrong["text_judge"] < right["text_judge"] - 0.2
    assert [wrong[s] for s in SCORES[:3]] == [right[s] for s in SCORES[:3]]


def test_pairing_is_by_name(judge, reference, captions, tmp_path):
    """The same clips under other names: the same set, but not the same pairs."""
    for i in range(NUM_CLIPS):
        shutil.copy(reference / name(i), tmp_path / name((i + 1) % NUM_CLIPS))
    scores = evaluate_folders(reference, tmp_path, captions, judge)
    assert scores["fd_judge"] < 1e-6
    assert scores["kl_judge"] > 0.3


def test_batch_size_file_order_and_level_do_not_matter(judge, reference, captions, tmp_path):
    noisy, again = tmp_path / "noisy", tmp_path / "again"
    noisy.mkdir()
    again.mkdir()
    for path in sorted(reference.iterdir()):
        clip = read_audio(path)
        write_audio(
            noisy / path.name, 0.5 * clip + 0.05 * torch.randn(clip.shape, generator=torch.Generator().manual_seed(0))
        )
    for path in sorted(noisy.iterdir(), reverse=True):
        soundfile.write(again / path.name, 0.5 * read_audio(path).numpy(), 16_000, subtype="FLOAT")
    first = evaluate_folders(reference, noisy, captions, judge)
    assert evaluate_folders(reference, noisy, dict(reversed(captions.items())), judge) == first
    for scores in (
        evaluate_folders(reference, noisy, captions, judge, batch_size=7),
        evaluate_folders(reference, again, captions, judge),
    ):
        assert [scores[s] for s in SCORES] == pytest.approx([first[s] for s in SCORES], rel=1e-4)


def test_clips_of_other_lengths_keep_their_place(judge, reference, captions, generated):
    """Cutting two files changes their own outputs, wherever they are batched, and nobody else's."""
    for i in (0, 30):
        write_audio(generated / name(i), read_audio(generated / name(i))[:20_000])
    whole, cut = (
        experiments.evaluate._hear(judge, [folder / name(i) for i in range(NUM_CLIPS)], batch_size=5)
        for folder in (reference, generated)
    )
    changed = (whole.features - cut.features).abs().amax(1) > 1e-3
    assert changed.nonzero().flatten().tolist() == [0, 30]


def test_says_what_it_is(judge, reference, captions):
    scores = evaluate_folders(reference, reference, captions, judge)
    assert scores["judge_kind"] == "embedded"
    assert scores["judge"] == judge.fingerprint()
    assert scores["out_of_domain"]
    assert not evaluate_folders(reference, reference, captions, judge, in_domain=True)["out_of_domain"]
    assert json.loads(json.dumps(scores)) == scores


def test_missing_files_are_listed(judge, reference, captions, generated):
    for i in range(7):
        (generated / name(i)).unlink()
    with pytest.raises(ValueError, match=r"generated lacks 7 .*000\.wav, 001\.wav, .*004\.wav, \.\.\.") as error:
        evaluate_folders(reference, generated, captions, judge)
    assert "005.wav" not in str(error.value)
    with pytest.raises(ValueError, match=r"generated lacks 7"):
        evaluate_folders(generated, reference, captions, judge)


def test_missing_caption_is_named(judge, reference, captions):
    fewer = {file: caption for file, caption in captions.items() if file != name(3)}
    with pytest.raises(ValueError, match=r"captions table lacks 1 .*003\.wav"):
        evaluate_folders(reference, reference, fewer, judge)


def test_unusable_folders_are_named(judge, reference, captions, tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        evaluate_folders(reference, tmp_path / "nowhere", captions, judge)
    with pytest.raises(ValueError, match="holds 0 WAV or FLAC files"):
        evaluate_folders(reference, tmp_path, captions, judge)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"not audio"),
        lambda path: soundfile.write(path, np.zeros(0), 16_000),
        lambda path: soundfile.write(path, np.full(16_000, np.nan), 16_000, subtype="FLOAT"),
    ],
    ids=["unreadable", "empty", "nan"],
)
def test_unusable_audio_is_named(judge, reference, captions, generated, spoil):
    spoil(generated / name(4))
    with pytest.raises(ValueError, match=r"generated/004\.wav"):
        evaluate_folders(reference, generated, captions, judge)


def test_the_command_writes_and_shows_the_scores(judge, reference, captions, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments.evaluate, "load_or_train_judge", lambda *_: judge)
    table = tmp_path / "captions.csv"
    table.write_text("file,caption\n" + "".join(f'clips/{file},"{caption}"\n' for file, caption in captions.items()))
    evaluate(reference, reference, table, out=tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text()) == evaluate_folders(
        reference, reference, captions, judge
    )
    shown = capsys.readouterr().out
    assert judge.fingerprint() in shown and "out of domain" in shown and f"N = {NUM_CLIPS}" in shown


def test_the_command_refuses_two_captions_for_a_name_before_training_a_judge(reference, tmp_path):
    table = tmp_path / "captions.csv"
    table.write_text("file,caption\na/000.wav,a click\nb/000.wav,rain\n")
    with pytest.raises(ValueError, match=r"captions\.csv, line 3: a second file named 000\.wav"):
        evaluate(reference, reference, table, judges=tmp_path / "judges")
    assert not (tmp_path / "judges").exists()
