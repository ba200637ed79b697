import json
import shutil
from dataclasses import dataclass, replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import experiments.scoring.train_judge
from data_modules.scenes import EmbeddedCorpus, Scene
from experiments.scoring.train_judge import (
    JudgeTraining,
    contrastive_loss,
    judge_path,
    judge_recipe,
    load_or_train_judge,
    measure_judge,
    train_judge,
)
from mntp.io.files import file_sha256
from mntp.metrics.networks.judge import Judge, JudgeOutput
from tests.experiments.conftest import SMALL_CORPUS, SMALL_TRAINING

TINY_TRAINING = JudgeTraining(num_clips=8, num_epochs=2, batch_size=4)


@dataclass(frozen=True)
class SpoiltValidation(EmbeddedCorpus):
    """The same training split, nonsense for validation, and no test split to be had."""

    def scene(self, split: str, index: int) -> Scene:
        assert split != "test"
        scene = super().scene(split, index)
        return replace(scene, waveform=scene.waveform * 0, caption="nothing") if split == "val" else scene


def waveforms(num_clips: int) -> torch.Tensor:
    return torch.stack([torch.from_numpy(SMALL_CORPUS.scene("test", i).waveform) for i in range(num_clips)])


def test_hears_classes_and_captions_far_above_chance(judge):
    quality = measure_judge(judge, SMALL_CORPUS, "test")
    assert quality["test_class_accuracy"] > 0.7
    assert quality["test_retrieval_accuracy"] > 5 / quality["test_clips"]
    assert quality["test_text_judge"] > quality["test_text_judge_shuffled"] + 0.2


@pytest.mark.parametrize("gain", [1e-2, 0.3, 1.9])
def test_blind_to_absolute_level(judge, gain):
    loud, quiet = judge(waveforms(6)), judge(waveforms(6) * gain)
    torch.testing.assert_close(loud, quiet, atol=1e-4, rtol=1e-4)


def test_clips_of_a_batch_do_not_influence_each_other(judge):
    together = {name: output[2:3] for name, output in judge(waveforms(6)).items()}
    torch.testing.assert_close(together, judge(waveforms(6)[2:3]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("samples", [1, 1600, 10_239, 10_240, 25_000, 163_840])
def test_any_length(judge, samples):
    outputs = judge(waveforms(2).repeat(1, 4)[:, :samples])
    torch.testing.assert_close(outputs["log_probs"].exp().sum(1), torch.ones(2))
    torch.testing.assert_close(outputs["audio_embedding"].norm(dim=1), torch.ones(2))


def test_silence_is_finite(judge):
    assert all(torch.isfinite(output).all() for output in judge(torch.zeros(1, 40_960)).values())


def test_the_order_of_sounds_matters(judge):
    clips = waveforms(6)
    original, reversed_halves = judge(clips), judge(clips.roll(clips.shape[1] // 2, dims=1))
    assert (original["audio_embedding"] * reversed_halves["audio_embedding"]).sum(1).min() < 0.99
    first, second = judge.embed_text(["a siren, then a click", "a click, then a siren"])
    assert first @ second < 0.99


def test_padding_of_a_batch_of_captions_is_not_read(judge):
    short, long = "a click", "a low siren rises slowly, then three short clicks follow"
    torch.testing.assert_close(judge.embed_text([short, long])[0], judge.embed_text([short])[0])


def test_a_caption_without_words_is_refused(judge):
    with pytest.raises(ValueError, match="word"):
        judge.embed_text(["a click", " ... "])


def outputs(embedding: torch.Tensor) -> JudgeOutput:
    return JudgeOutput(embedding, embedding, embedding)


def test_clips_with_the_same_caption_are_no_negatives():
    """Two clips of one caption and one of another, all aligned: only the choice between the two is left."""
    e, f = torch.eye(2)
    audio = torch.stack([e, e, f])
    loss = contrastive_loss(outputs(audio), audio, ["x", "x", "y"], temperature=0.01)
    assert loss.item() == pytest.approx(2 / 3 * torch.tensor(2.0).log().item(), abs=1e-4)
    wrong = contrastive_loss(outputs(audio), audio, ["x", "z", "y"], temperature=0.01)
    misaligned = contrastive_loss(outputs(audio), audio.roll(1, 0), ["x", "x", "y"], temperature=0.01)
    assert wrong.item() == pytest.approx(loss.item(), abs=1e-4)
    assert misaligned > loss + 10


def test_training_is_a_function_of_its_recipe_alone():
    """Not of the number of threads, the corpus' size, the other splits or the global generator."""
    state = torch.random.get_rng_state()
    first, _ = train_judge(SMALL_CORPUS, TINY_TRAINING)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2 if num_threads == 1 else 1)
    torch.rand(3)
    other_threads = torch.get_num_threads()
    again, _ = train_judge(SMALL_CORPUS, TINY_TRAINING)
    assert torch.get_num_threads() == other_threads != num_threads
    torch.set_num_threads(num_threads)
    torch.random.set_rng_state(state)
    larger, _ = train_judge(EmbeddedCorpus(num_train=400, num_val=8), TINY_TRAINING)
    spoilt, _ = train_judge(SpoiltValidation(num_train=320, num_val=48, num_test=48), TINY_TRAINING)
    other, _ = train_judge(SMALL_CORPUS, replace(TINY_TRAINING, seed=1))
    assert (
        first.fingerprint()
        == again.fingerprint()
        == larger.fingerprint()
        == spoilt.fingerprint()
        != other.fingerprint()
    )
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_cache_is_used_and_says_how_good_the_judge_is(judge, judge_folder, monkeypatch):
    monkeypatch.setattr(experiments.scoring.train_judge, "train_judge", None)
    cached = load_or_train_judge(judge_folder, SMALL_CORPUS, SMALL_TRAINING)
    assert cached.fingerprint() == judge.fingerprint()
    report = json.loads(judge_path(judge_folder, SMALL_CORPUS, SMALL_TRAINING).with_suffix(".json").read_text())
    assert report["weights"] == judge.weights_hash()
    assert report["recipe"] == judge_recipe(SMALL_CORPUS, SMALL_TRAINING)
    assert 0 < report["quality"]["val_class_accuracy"] <= 1
    assert not any(parameter.requires_grad for parameter in cached.parameters())


def test_every_part_of_the_recipe_names_another_judge(tmp_path, monkeypatch):
    paths = [
        judge_path(tmp_path, SMALL_CORPUS, SMALL_TRAINING),
        judge_path(tmp_path, EmbeddedCorpus()),
        judge_path(tmp_path, replace(SMALL_CORPUS, num_train=100), SMALL_TRAINING),
        judge_path(tmp_path, replace(SMALL_CORPUS, seconds=1.28), SMALL_TRAINING),
        judge_path(tmp_path, replace(SMALL_CORPUS, seed=1), SMALL_TRAINING),
        judge_path(tmp_path, SMALL_CORPUS, replace(SMALL_TRAINING, lr=1e-4)),
    ]
    monkeypatch.setattr(experiments.scoring.train_judge, "SOURCE_VERSION", 0)
    paths.append(judge_path(tmp_path, SMALL_CORPUS, SMALL_TRAINING))
    assert len(set(paths)) == len(paths)


def test_what_trains_nothing_names_no_other_judge(tmp_path):
    path = judge_path(tmp_path, SMALL_CORPUS, SMALL_TRAINING)
    for sizes in ({"num_val": 1}, {"num_test": 0}, {"num_train": 5000}):
        assert judge_path(tmp_path, replace(SMALL_CORPUS, **sizes), SMALL_TRAINING) == path


@pytest.mark.parametrize("corpus", [EmbeddedCorpus(), EmbeddedCorpus(128, 16, 16), EmbeddedCorpus(16_384, 256, 512)])
def test_the_default_corpus_of_any_size_has_the_shipped_judge(tmp_path, monkeypatch, corpus):
    monkeypatch.setattr(experiments.scoring.train_judge, "train_judge", None)
    shipped = load_or_train_judge(tmp_path, corpus)
    assert shipped.weights_hash() == "ad6f1379e73a"
    assert not list(tmp_path.iterdir())


def test_the_shipped_judge_is_of_the_default_recipe_and_good():
    """If this fails, a recipe has changed: train the judge again by `mntp judge` and pin its sha256."""
    path = judge_path(experiments.scoring.train_judge.SHIPPED, EmbeddedCorpus())
    assert file_sha256(path) == experiments.scoring.train_judge.SHIPPED_SHA256
    report = json.loads(path.with_suffix(".json").read_text())
    assert report["recipe"] == judge_recipe(EmbeddedCorpus(), JudgeTraining())
    shipped = load_or_train_judge(path.parent, EmbeddedCorpus())
    quality = measure_judge(shipped, EmbeddedCorpus(num_test=64), "test")
    assert quality["test_class_accuracy"] > 0.9
    assert quality["test_text_judge"] > quality["test_text_judge_shuffled"] + 0.7


def test_a_shipped_file_of_other_content_is_refused(tmp_path, monkeypatch):
    path = judge_path(experiments.scoring.train_judge.SHIPPED, EmbeddedCorpus())
    (tmp_path / path.name).write_bytes(path.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(experiments.scoring.train_judge, "SHIPPED", tmp_path)
    with pytest.raises(ValueError, match="not the judge that the suite ships; install the suite again"):
        load_or_train_judge(tmp_path, EmbeddedCorpus())


def truncate(path):
    path.write_bytes(path.read_bytes()[:5000])


def alter_weights(path):
    with experiments.scoring.train_judge.safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["class_head.bias"] += 1e-3
    save_file(tensors, path, metadata)


def drop_a_weight(path):
    tensors = load_file(path)
    del tensors["class_head.bias"]
    save_file(tensors, path)


def from_another_recipe(path):
    save_file(Judge(experiments.scoring.train_judge.CLASSES).state_dict(), path, {"judge": '{"recipe": {}}'})


@pytest.mark.parametrize("damage", [truncate, alter_weights, drop_a_weight, from_another_recipe])
def test_a_damaged_cache_is_refused_with_a_remedy(judge, judge_folder, tmp_path, damage):
    path = judge_path(tmp_path, SMALL_CORPUS, SMALL_TRAINING)
    shutil.copy(judge_path(judge_folder, SMALL_CORPUS, SMALL_TRAINING), path)
    damage(path)
    with pytest.raises(ValueError, match="delete it") as error:
        load_or_train_judge(tmp_path, SMALL_CORPUS, SMALL_TRAINING)
    assert path.name in str(error.value) and "\n" not in str(error.value)


def test_nothing_is_left_of_an_interrupted_write(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(experiments.scoring.train_judge, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        load_or_train_judge(tmp_path, SMALL_CORPUS, TINY_TRAINING)
    assert not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob(".*.tmp"))
