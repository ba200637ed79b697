import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data_modules.store.clips import ClipRow
from data_modules.store.store import Store
from data_modules.store.writer import ShardWriter, finish_store, shard_name
from mntp.audio.files import read_audio
from mntp.io import integrity
from mntp.tokenizers.layout import mel_layout
from tests.data_modules.folders import SECONDS

SAMPLES = 5120
LAYOUT = mel_layout(4)
TOKENIZER = {"class": "T", "settings": {}, "fingerprint": "abc", "state": {"mean": torch.arange(3.0)}}
TEXT = {"class": "H", "settings": {"dim": 2}, "fingerprint": "def"}


def clip(number: int) -> tuple[ClipRow, torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    """A clip whose numbers float16 holds exactly; clip i has i % 3 + 1 words."""
    split = ("train", "val", "test")[number % 3]
    row = ClipRow(f"clip{number}", f"sub/clip{number}.wav", f'rain, "{number}"', split, SECONDS - number / 16_000, 0.0)
    words = torch.full((number % 3 + 1, 2), float(number))
    text = {"pooled": torch.full((1, 2), number / 2), "words": words}
    return row, torch.arange(8 * 4).reshape(8, 4) + number * 0.5, text, torch.linspace(-0.5, 0.5, SAMPLES)


def write(folder: Path, num_clips: int = 7) -> Store:
    """A store of three clips a shard."""
    folder.mkdir()
    clips, entries = [], []
    for number, first in enumerate(range(0, num_clips, 3)):
        writer = ShardWriter(folder / shard_name(number), folder / "audio", LAYOUT)
        for place in range(first, min(first + 3, num_clips)):
            writer.add(*clip(place))
        entries.append(writer.close())
        clips += writer.clips
    finish_store(
        folder, clips, entries, TOKENIZER, TEXT, SAMPLES, LAYOUT, settings={}, coverage={"stored": 7, "rows": 9}
    )
    return Store(folder)


def test_what_was_written_is_read_back_over_shard_borders(tmp_path: Path) -> None:
    store = write(tmp_path / "store")
    assert [shard["clips"] for shard in store.index["shards"]] == [3, 3, 1]
    for row in (6, 0, 3, 2, 5, 4, 1):
        expected, tokens, text, _ = clip(row)
        assert store.clips[row] == expected
        assert torch.equal(store.tokens(row), tokens)
        assert store.tokens(row).dtype == torch.float32
        assert store.text(row).keys() == text.keys()
        assert all(torch.equal(store.text(row)[name], text[name]) for name in text)
    assert store.split("val") == [1, 4]
    assert store.index["statistics"]["train"] == {"clips": 3, "seconds": round(3 * SECONDS - 9 / 16_000, 3)}


def test_shards_have_the_documented_keys_and_types(tmp_path: Path) -> None:
    write(tmp_path / "store")
    shard = load_file(tmp_path / "store" / "shard-00001.safetensors")
    assert {key: (value.dtype, tuple(value.shape)) for key, value in shard.items()} == {
        "tokens": (torch.float16, (3, 8, 4)),
        "text.pooled": (torch.float16, (3, 2)),
        "text.pooled.offsets": (torch.int64, (4,)),
        "text.words": (torch.float16, (6, 2)),
        "text.words.offsets": (torch.int64, (4,)),
    }
    assert shard["text.words.offsets"].tolist() == [0, 1, 3, 6]


def test_audio_is_kept_for_validation_and_test_alone(tmp_path: Path) -> None:
    store = write(tmp_path / "store")
    files = sorted(path.relative_to(store.path).as_posix() for path in store.path.rglob("*.wav"))
    assert files == ["audio/test/clip2.wav", "audio/test/clip5.wav", "audio/val/clip1.wav", "audio/val/clip4.wav"]
    assert torch.allclose(read_audio(store.audio_path(1)), clip(1)[3], atol=1 / 32768)


def test_preprocessing_is_complete(tmp_path: Path) -> None:
    preprocessing = write(tmp_path / "store").preprocessing()
    assert torch.equal(preprocessing["tokenizer"].pop("state")["mean"], TOKENIZER["state"]["mean"])  # type: ignore[index]  # a nested dict
    assert preprocessing == {
        "tokenizer": {"class": "T", "settings": {}, "fingerprint": "abc"},
        "text": TEXT,
        "samples": SAMPLES,
        "num_tokens": 8,
        "token_dim": 4,
    }


@pytest.mark.parametrize(
    ("samples", "slices"), [(1, 1), (2559, 1), (2560, 1), (2561, 2), (5120, 2)], ids=lambda value: str(value)
)
def test_a_slice_that_the_sound_reaches_into_is_valid(tmp_path: Path, samples: int, slices: int) -> None:
    store = write(tmp_path / "store", num_clips=1)
    store.clips[0] = replace(store.clips[0], seconds=samples / 16_000)
    assert store.num_valid_tokens(0) == slices * 4
    assert store.read([0]).valid[0].tolist() == [True] * 4 * slices + [False] * 4 * (2 - slices)


def test_same_clips_same_bytes_and_other_clips_another_fingerprint(tmp_path: Path) -> None:
    first, second, other = write(tmp_path / "a"), write(tmp_path / "b"), write(tmp_path / "c", num_clips=6)
    files = sorted(path.relative_to(first.path) for path in first.path.rglob("*") if path.is_file())
    assert all((first.path / file).read_bytes() == (second.path / file).read_bytes() for file in files)
    assert first.fingerprint == second.fingerprint != other.fingerprint
    assert len(first.fingerprint) == 12


def test_a_pickled_store_opens_its_own_shards(tmp_path: Path) -> None:
    store = write(tmp_path / "store")
    before = store.tokens(4)
    copy = pickle.loads(pickle.dumps(store))
    assert torch.equal(copy.tokens(4), before)


def test_values_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    row, tokens, text, waveform = clip(0)
    (tmp_path / "store").mkdir()
    with pytest.raises(ValueError, match=r"sub/clip0\.wav: a value does not fit into float16"):
        ShardWriter(tmp_path / "shard", tmp_path, LAYOUT).add(row, tokens * 1e5, text, waveform)


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    store = write(tmp_path / "store")
    shard = store.path / "shard-00001.safetensors"
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-10])
    message = rf"shard-00001\.safetensors: truncated or altered, {size - 10} bytes, expected {size}; prepare"
    with pytest.raises(ValueError, match=message):
        store.verify()
    with pytest.raises(ValueError, match=r"shard-00001\.safetensors: can't be opened as a shard"):
        store.tokens(3)


def test_an_altered_byte_is_found_even_after_a_good_check(tmp_path: Path) -> None:
    store = write(tmp_path / "store")
    store.verify()
    shard = store.path / "shard-00002.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"shard-00002\.safetensors: altered, sha256 .*expected .*; prepare the"):
            store.verify()


@pytest.mark.parametrize("file", ["shard-00000.safetensors", "tokenizer.safetensors", "clips.csv"])
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    store = write(tmp_path / "store")
    (store.path / file).unlink()
    with pytest.raises(ValueError, match=f"{file}: missing from the store"):
        store.verify()


def test_files_are_hashed_once_per_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write(tmp_path / "store")
    hashed: list[str] = []
    check = integrity._check_content
    monkeypatch.setattr(integrity, "_check_content", lambda path, *rest: (hashed.append(path.name), check(path, *rest)))
    store.verify()
    assert len(hashed) == 5
    Store(store.path).verify()
    assert len(hashed) == 5
    os.utime(store.path / "shard-00001.safetensors", ns=(0, 0))
    store.verify()
    assert hashed[5:] == ["shard-00001.safetensors"]
    # An unreadable memory of former checks costs time, nothing else.
    (store.path / integrity.VERIFIED).write_text("{")
    store.verify()
    assert len(hashed) == 11


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not the index of a store"), ("[]", "not the index of a store"), ('{"format": 9}', "format 9, expected 1")],
)
def test_a_wrong_index_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(ValueError, match=rf"index\.json: {message}.*; prepare the store again"):
        Store(tmp_path)


def test_an_absent_store_says_how_to_prepare_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none: no store there .*mntp prepare --captions"):
        Store(tmp_path / "none")


def test_clips_and_shards_must_agree(tmp_path: Path) -> None:
    store = write(tmp_path / "store")
    index = json.loads((store.path / "index.json").read_text())
    index["shards"].pop()
    (store.path / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"clips\.csv has 7 rows, but the shards hold 6 clips"):
        Store(store.path)
