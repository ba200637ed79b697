"""Tokenizers of other layouts, from preparation to sound; and stores from before layouts were recorded."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor

from data_modules.corpora.captioned_folder import CaptionedFolder
from data_modules.corpora.embedded import EmbeddedSource
from data_modules.latents import LatentDataModule
from data_modules.preparation.prepare import prepare_store
from data_modules.scenes import EmbeddedCorpus
from data_modules.store.store import INDEX, Store
from mntp.audio.files import read_audio
from mntp.inference.streaming import StreamingDecoder, Windows
from mntp.text import HashedText, TextEncoder, build_text_encoder
from mntp.tokenizers import MelTokenizer, Tokenizer, TokenLayout, build_tokenizer
from tests.data_modules.folders import write_folder
from tests.own_parts import BlockTokenizer, LevelTokenizer, VowelText

MADE_BEFORE = Path(__file__).parent / "store" / "made_before_layouts"
SECONDS = 2.56
LENGTHS = {"a.wav": (1.04, "train"), "b.wav": (2.56, "train"), "c.wav": (0.4, "val"), "d.wav": (0.05, "test")}


def prepare(folder: Path, tokenizer: Tokenizer, text: TextEncoder | None = None) -> Store:
    table = write_folder(folder, LENGTHS)
    return prepare_store(CaptionedFolder(table, folder), tokenizer, text or VowelText(), folder / "store", SECONDS)


@pytest.mark.parametrize(
    ("tokenizer", "num_tokens", "valid"),
    [(BlockTokenizer(), 32, [13, 32, 5, 1]), (LevelTokenizer(), 128, [52, 128, 20, 4])],
)
def test_a_tokenizer_of_its_own_layout_from_preparation_to_sound(
    tmp_path: Path, tokenizer: Tokenizer, num_tokens: int, valid: list[int]
) -> None:
    store, layout = prepare(tmp_path, tokenizer), tokenizer.layout
    assert store.layout == layout
    assert store.samples == SECONDS * layout.sample_rate
    assert [store.num_valid_tokens(row) for row in range(4)] == valid

    data = LatentDataModule(tmp_path / "store", batch_size=2)
    (batch,) = data.train_dataloader()
    assert batch.tokens.shape == (2, num_tokens, layout.dim)
    assert batch.valid.sum(1).tolist() == [valid[row] for row in batch.index.tolist()]
    assert (batch.ids is None) == (layout.vocabulary is None)

    (batch,) = data.val_dataloader()
    heard = read_audio(store.audio_path(2), layout.sample_rate)
    assert len(heard) == store.samples
    again = build_tokenizer(data.preprocessing["tokenizer"])
    tokens, ids = again.encode_ids(heard[None])
    torch.testing.assert_close(batch.tokens, tokens, atol=2e-3, rtol=2e-3)  # float16, and WAV of 16 bits
    if ids is not None:
        assert isinstance(again, LevelTokenizer)
        assert batch.ids is not None
        assert batch.ids.dtype == torch.int64
        assert torch.equal(batch.ids, ids)
        assert ids.unique().numel() > 2
        torch.testing.assert_close(batch.tokens, again.codebook[batch.ids], atol=1e-3, rtol=0)
        assert torch.equal(move_data_to_device(batch, "cpu").ids, ids)

    whole = again.decode(batch.tokens)
    assert whole.shape == (1, store.samples)
    decoder = StreamingDecoder(again, layout.num_frames(num_tokens), Windows(crossfade=64))
    pieces = [decoder.push(batch.tokens, num_final) for num_final in range(num_tokens + 1)]
    found = [piece for piece in pieces if piece is not None]
    assert len(found) == layout.num_frames(num_tokens) - 2
    torch.testing.assert_close(torch.cat(found, dim=1), whole)


def test_ids_survive_several_shards_and_loading_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_modules.preparation.encoding.CLIPS_PER_SHARD", 1)
    store = prepare(tmp_path, LevelTokenizer())
    assert len(store.index["shards"]) == 4
    (batch,) = LatentDataModule(tmp_path / "store", batch_size=2, num_workers=1).train_dataloader()
    alone = torch.cat([store.read([row]).ids for row in batch.index.tolist()])
    assert torch.equal(batch.ids, alone)
    assert not torch.equal(alone[0], alone[1])


class WrongShape(BlockTokenizer):
    def encode(self, waveform: Tensor) -> Tensor:
        return super().encode(waveform)[:, 1:]


class WrongIds(LevelTokenizer):
    def encode_ids(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        tokens, ids = super().encode_ids(waveform)
        return tokens, ids + 16


class NoIds(LevelTokenizer):
    def encode_ids(self, waveform: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]  # the mistake
        return super().encode_ids(waveform)[0], None


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (WrongShape(), r"WrongShape gives tokens of shape \(4, 31, 8\); its layout asks for \(4, 32, 8\)"),
        (WrongIds(), r"a.wav: .* ids torch.int64 of shape \(128,\); its vocabulary of 16 asks for 128 whole numbers"),
        (NoIds(), r"a.wav: the tokenizer gives ids none; its vocabulary of 16"),
    ],
)
def test_a_tokenizer_that_does_not_keep_to_its_layout_is_refused(
    tmp_path: Path, tokenizer: Tokenizer, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path, tokenizer)


def test_layouts_are_whole_numbers_and_frames_are_whole() -> None:
    layout = TokenLayout(dim=8, sample_rate=16_000, samples_per_frame=1280)
    assert (layout.num_tokens(40_960), layout.num_frames(33), layout.frame_seconds) == (32, 33, 0.08)
    with pytest.raises(ValueError, match=r"40961 samples does not fill whole frames of 1280 samples \(0.08 s\)"):
        layout.num_tokens(40_961)
    for wrong in ({"dim": 0}, {"sample_rate": 16e3}, {"vocabulary": 0}, {"tokens_per_frame": True}):
        with pytest.raises(ValueError, match=f"a token layout with {next(iter(wrong))}="):
            TokenLayout(**{"dim": 8, "sample_rate": 16_000, "samples_per_frame": 1280, **wrong})
    with pytest.raises(ValueError, match="not a token layout"):
        TokenLayout.from_index({"dim": 8})


def test_a_store_from_before_layouts_is_read_and_not_prepared_again(tmp_path: Path) -> None:
    """It was written by commit d8fde82, from the same corpus."""
    path = tmp_path / "store"
    shutil.copytree(MADE_BEFORE, path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    corpus = EmbeddedCorpus(num_train=2, num_val=1, num_test=1, seconds=0.32)
    arguments = (EmbeddedSource(corpus), MelTokenizer(2, 1), HashedText(dim=2, slots=4))
    store = prepare_store(*arguments, path, seconds=0.32, threads=2)
    assert "layout" not in store.index
    assert {file: file.read_bytes() for file in before} == before
    store.verify()
    assert store.layout == TokenLayout(2, sample_rate=16_000, samples_per_frame=2560, tokens_per_frame=4)
    assert [store.num_valid_tokens(row) for row in range(4)] == [8, 8, 8, 8]

    anew = prepare_store(*arguments, tmp_path / "anew", seconds=0.32, threads=2)
    assert anew.index["layout"] == {
        "dim": 2,
        "sample_rate": 16_000,
        "samples_per_frame": 2560,
        "tokens_per_frame": 4,
        "vocabulary": None,
    }
    assert anew.index["settings"] == store.index["settings"]
    for row in range(4):
        torch.testing.assert_close(store.tokens(row), anew.tokens(row), atol=2e-3, rtol=2e-3)
    assert build_text_encoder(store.preprocessing()["text"]).fingerprint() == store.index["text"]["fingerprint"]
    tokenizer = build_tokenizer(store.preprocessing()["tokenizer"])
    assert tokenizer.decode(store.tokens(0)[None]).shape == (1, 5120)


def test_a_damaged_layout_is_named(tmp_path: Path) -> None:
    path = prepare(tmp_path, BlockTokenizer()).path
    index = json.loads((path / INDEX).read_text())
    index["layout"]["samples_per_frame"] = "many"
    (path / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index.json: a token layout with samples_per_frame='many'.*prepare"):
        Store(path)


READ_STORE = """
import sys
from data_modules.latents import LatentDataModule
LatentDataModule(sys.argv[1], batch_size=2).train_dataloader()
print(sorted(name for name in sys.modules if name.startswith(('data_modules.preparation', 'data_modules.corpora'))))
"""


def test_a_reader_does_not_import_what_writes_stores() -> None:
    done = subprocess.run([sys.executable, "-c", READ_STORE, MADE_BEFORE], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
