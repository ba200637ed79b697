"""CLAP's and FLAN-T5's text: any caption, neighbours that don't count, content that is told apart."""

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from mntp.text import ClapText, CombinedText, FlanT5, HashedText, LaionClapText, build_text_encoder, text_spec
from tests.public_models import (
    CLAP_DIM,
    T5_DIM,
    change_config,
    clap_model,
    drop_weights,
    roberta_tokenizer,
    shake_weights,
    truncate_weights,
    write_clap,
    write_t5,
)

CAPTIONS = ["a dog barks", "", "rain falls " * 300, "雨の音 🔔", "lone \ud800 half", " \n", "rain falls"]
LAION = Path("weights/music_speech_audioset_epoch_15_esc_89.98.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    write_t5(folder / "t5")
    write_clap(folder / "clap")
    return folder


@pytest.fixture(scope="module")
def t5(folder: Path) -> FlanT5:
    return FlanT5(str(folder / "t5"))


@pytest.fixture(scope="module")
def clap(folder: Path) -> ClapText:
    return ClapText(str(folder / "clap"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_t5_states_go_up_to_the_end_mark_and_are_cut_at_77(t5: FlanT5) -> None:
    states = t5.encode(CAPTIONS)["words"]
    assert [len(each) for each in states[:3]] == [4, 1, 77]
    assert len(states[6]) == 3
    assert all(1 <= len(each) <= 77 and each.shape[1] == T5_DIM for each in states)
    assert all(each.dtype == torch.float32 and each.isfinite().all() for each in states)
    assert (t5.streams["words"].dim, t5.streams["words"].max_length) == (T5_DIM, 77)


def test_t5_states_are_those_of_the_encoder_without_padding(t5: FlanT5) -> None:
    """Indices by hand: <pad> </s> <unk> ▁ ▁a ▁dog ▁barks; a cut caption keeps its end mark."""
    states = t5.encode(CAPTIONS)["words"]
    with torch.no_grad():
        for state, indices in ((states[0], [4, 5, 6, 1]), (states[1], [1]), (states[2], [7, 8] * 38 + [1])):
            expected = t5._model(input_ids=torch.tensor([indices])).last_hidden_state[0]
            torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-5)


def test_slots_cut_t5(folder: Path, t5: FlanT5) -> None:
    short = FlanT5(str(folder / "t5"), slots=3)
    assert [len(each) for each in short.encode(CAPTIONS)["words"]][:2] == [3, 1]
    assert short.fingerprint() != t5.fingerprint()
    with pytest.raises(ValueError, match="slots=0; expected at least 1"):
        FlanT5(str(folder / "t5"), slots=0)


def test_clap_vectors_have_norm_1_and_follow_the_model(clap: ClapText, folder: Path) -> None:
    from torch.nn.functional import normalize

    vectors = clap.encode(CAPTIONS)["pooled"]
    assert all(vector.shape == (1, CLAP_DIM) for vector in vectors)
    torch.testing.assert_close(torch.cat(vectors).norm(dim=1), torch.ones(len(CAPTIONS)))
    model = clap_model()
    with torch.no_grad():
        for number, text in ((0, CAPTIONS[0].encode()), (1, b""), (2, CAPTIONS[2].encode()[:75])):
            letters = roberta_tokenizer().convert_tokens_to_ids([chr(byte) if byte != 32 else "Ġ" for byte in text])
            pooled = model.text_model(input_ids=torch.tensor([[0, *letters, 2]])).pooler_output
            expected = normalize(model.text_projection(pooled), dim=-1)
            torch.testing.assert_close(vectors[number], expected, atol=1e-5, rtol=1e-4)
    assert (vectors[0] @ vectors[6].T).item() < 0.999


@pytest.mark.parametrize("name", ["t5", "clap"])
def test_a_caption_does_not_depend_on_its_neighbours(name: str, request: pytest.FixtureRequest) -> None:
    encoder = request.getfixturevalue(name)
    (together,) = encoder.encode(CAPTIONS).values()
    assert encoder.encode(CAPTIONS).keys() == encoder.streams.keys()
    for caption, state in zip(CAPTIONS, together, strict=True):
        (alone,) = next(iter(encoder.encode([caption]).values()))
        torch.testing.assert_close(alone, state, atol=1e-5, rtol=1e-4)
    (again,) = encoder.encode(CAPTIONS).values()
    assert all(first.equal(second) for first, second in zip(together, again, strict=True))


def test_single_precision_whatever_is_around(t5: FlanT5, clap: ClapText) -> None:
    for encoder in (t5, clap):
        (expected,) = encoder.encode(CAPTIONS).values()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (found,) = encoder.encode(CAPTIONS).values()
        assert all(first.equal(second) for first, second in zip(found, expected, strict=True))


def test_two_encoders_travel_as_one_spec(t5: FlanT5, clap: ClapText) -> None:
    both = CombinedText(pooled=clap, words=t5)
    spec = text_spec(both)
    twin = build_text_encoder(spec)
    assert {name: (stream.dim, stream.max_length) for name, stream in twin.streams.items()} == {
        "pooled": (CLAP_DIM, 1),
        "words": (T5_DIM, 77),
    }
    states = twin.encode(CAPTIONS)
    assert all(a.equal(b) for a, b in zip(states["pooled"], clap.encode(CAPTIONS)["pooled"], strict=True))
    assert all(a.equal(b) for a, b in zip(states["words"], t5.encode(CAPTIONS)["words"], strict=True))
    changed = {**spec["settings"], "words": text_spec(HashedText())}
    with pytest.raises(ValueError, match="was altered"):
        build_text_encoder(spec | {"settings": changed})


def test_a_stream_that_is_not_there(t5: FlanT5, clap: ClapText) -> None:
    mixed = CombinedText(pooled=HashedText(dim=3), words=t5)
    assert mixed.encode(["a dog"])["pooled"][0].shape == (1, 3)
    with pytest.raises(ValueError, match="words: ClapText gives pooled; expected an encoder that gives the stream"):
        CombinedText(pooled=clap, words=clap)


@pytest.mark.parametrize("cls", [FlanT5, ClapText])
def test_the_fingerprint_covers_content_and_not_its_place(
    cls: type[FlanT5 | ClapText], folder: Path, copy: Path
) -> None:
    name = {FlanT5: "t5", ClapText: "clap"}[cls]
    original, moved = cls(str(folder / name)), cls(str(copy / name))
    assert moved.fingerprint() == original.fingerprint()
    spec = text_spec(moved)
    shake_weights(copy / name, {"t5": "encoder.final_layer_norm.weight", "clap": "text_projection.linear1.bias"}[name])
    found = cls(str(copy / name)).weights
    with pytest.raises(ValueError, match=f"{copy / name}: holds weights {found}, expected {original.weights}"):
        build_text_encoder(spec)


def test_claps_ear_is_none_of_the_texts_business(copy: Path, clap: ClapText) -> None:
    shake_weights(copy / "clap", "audio_projection.linear1.bias")
    assert ClapText(str(copy / "clap")).fingerprint() == clap.fingerprint()


def test_constants_need_not_be_in_the_file(copy: Path, clap: ClapText) -> None:
    """Files of other versions of transformers hold other ones."""
    for name in ("text_model.embeddings.position_ids", "text_model.embeddings.token_type_ids"):
        drop_weights(copy / "clap", name)
    other = ClapText(str(copy / "clap"))
    assert other.fingerprint() == clap.fingerprint()
    torch.testing.assert_close(other.encode(["a dog"]), clap.encode(["a dog"]), atol=1e-6, rtol=0)


def test_another_vocabulary_is_other_content(copy: Path, t5: FlanT5) -> None:
    path = copy / "t5" / "tokenizer.json"
    path.write_text(path.read_text().replace("▁barks", "▁burks"))
    assert FlanT5(str(copy / "t5")).weights != t5.weights


def test_the_encoder_of_a_whole_t5_is_the_same(tmp_path: Path, t5: FlanT5) -> None:
    """google/flan-t5-* hold the decoder too."""
    from transformers import T5ForConditionalGeneration

    whole = T5ForConditionalGeneration(t5._model.config)
    whole.encoder.load_state_dict(t5._model.encoder.state_dict())
    whole.shared.load_state_dict(t5._model.shared.state_dict())
    whole.save_pretrained(tmp_path)
    t5._tokenizer.save_pretrained(tmp_path)
    assert FlanT5(str(tmp_path)).fingerprint() == t5.fingerprint()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda at: (at / "t5" / "tokenizer.json").unlink(), r"t5: no tokenizer.json there"),
        (lambda at: (at / "t5" / "tokenizer.json").write_text("{"), r"t5: can't be loaded as a text tokenizer"),
        (lambda at: (at / "t5" / "config.json").unlink(), r"t5: no config.json there"),
        (lambda at: truncate_weights(at / "t5"), r"t5: can't be loaded as T5EncoderModel"),
        (lambda at: change_config(at / "t5", vocab_size=32_128), r"t5: can't be loaded as T5EncoderModel"),
        (
            lambda at: drop_weights(at / "t5", "encoder.final_layer_norm.weight"),
            r"lacks 1 weights of T5EncoderModel \(encoder.final_layer_norm.weight",
        ),
        (lambda at: drop_weights(at / "clap", "text_projection.linear2.bias"), r"lacks 1 weights of ClapModel"),
        (lambda at: (at / "clap" / "tokenizer.json").unlink(), r"clap: no tokenizer.json there"),
        (
            lambda at: (at / "clap" / "tokenizer.json").rename(at / "clap" / "vocab.txt"),
            r"clap: its text tokenizer has 5 words, its model 261; expected as many",
        ),
        (lambda at: shutil.rmtree(at / "clap"), r"clap: no such folder"),
    ],
)
def test_a_damaged_checkpoint_is_one_line(copy: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(copy)
    with pytest.raises(ValueError, match=message) as caught:
        CombinedText(ClapText(str(copy / "clap")), FlanT5(str(copy / "t5")))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_another_model_is_noticed(tmp_path: Path) -> None:
    write_t5(tmp_path, vocab_size=32_128)
    with pytest.raises(ValueError, match=r"has 135 words, its model 32128; expected as many, or up to 127"):
        FlanT5(str(tmp_path))


@pytest.fixture
def laion_loader(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Stands in for the loader of LAION's files, which has tests of its own; gives the paths that it was asked for."""
    asked: list[Path] = []
    module = ModuleType("mntp.pretrained.laion_clap")
    module.load_laion_clap = lambda path: asked.append(path) or clap_model()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mntp.pretrained.laion_clap", module)
    yield asked


def test_laions_own_file_gives_the_same_as_the_hubs_layout(
    folder: Path, clap: ClapText, laion_loader: list[Path]
) -> None:
    own = ClapText("weights/some.pt", tokenizer=str(folder / "clap"))
    assert laion_loader == [Path("weights/some.pt")]
    assert own.fingerprint() == clap.fingerprint()
    assert own.settings()["path"] == "weights/some.pt"
    for ours, hubs in zip(own.encode(CAPTIONS)["pooled"], clap.encode(CAPTIONS)["pooled"], strict=True):
        assert ours.equal(hubs)
    assert build_text_encoder(text_spec(own)).fingerprint() == clap.fingerprint()


class FakePackage(torch.nn.Module):
    """`laion_clap.CLAP_Module` as far as text goes; like the package, it takes no batch of one."""

    def __init__(self, enable_fusion: bool, amodel: str) -> None:
        super().__init__()
        assert not enable_fusion and amodel == "HTSAT-base"
        self.model = torch.nn.Module()

    def load_ckpt(self, ckpt: str, verbose: bool) -> None:
        self.model.text_projection = torch.nn.Linear(1, 512)

    def get_text_embedding(self, texts: list[str], use_tensor: bool) -> Tensor:
        assert use_tensor and len(texts) > 1
        return self.model.text_projection(torch.tensor([[float(len(text))] for text in texts]))


def test_laions_package_stands_behind_the_same_interface(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some.pt").touch()
    module = ModuleType("laion_clap")
    module.CLAP_Module = FakePackage  # type: ignore[attr-defined]
    module.__spec__ = importlib.util.spec_from_loader("laion_clap", None)
    monkeypatch.setitem(sys.modules, "laion_clap", module)
    monkeypatch.setattr("mntp.text.laion_package.TEXT_TOKENIZER", str(folder / "clap"))
    encoder = LaionClapText(str(tmp_path / "some.pt"))
    for captions in (["a dog"], ["a dog", "rain", ""]):
        vectors = encoder.encode(captions)["pooled"]
        assert [tuple(vector.shape) for vector in vectors] == [(1, 512)] * len(captions)
        expected = encoder._module.model.text_projection(torch.tensor([float(len(captions[0]))]))
        torch.testing.assert_close(vectors[0][0], expected.detach())
    monkeypatch.setattr("mntp.text.laion_package.TEXT_TOKENIZER", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        LaionClapText(str(tmp_path / "some.pt"))


@pytest.mark.skipif(importlib.util.find_spec("laion_clap") is not None, reason="laion-clap is installed")
def test_laions_package_is_asked_for_in_words(tmp_path: Path) -> None:
    (tmp_path / "some.pt").touch()
    with pytest.raises(ValueError, match="needs the package laion-clap, which is not installed; use ClapText"):
        LaionClapText(str(tmp_path / "some.pt"))
    with pytest.raises(ValueError, match=r"other.pt: no such file; expected a checkpoint of LAION's training"):
        LaionClapText(str(tmp_path / "other.pt"))


@pytest.mark.skipif(importlib.util.find_spec("laion_clap") is None, reason="laion-clap is not installed")
@pytest.mark.skipif(not LAION.is_file(), reason=f"{LAION} is not there")
def test_laions_package_and_transformers_agree() -> None:
    ours, theirs = ClapText(str(LAION)).encode(CAPTIONS), LaionClapText(str(LAION)).encode(CAPTIONS)
    torch.testing.assert_close(torch.cat(ours["pooled"]), torch.cat(theirs["pooled"]), atol=1e-5, rtol=0)
