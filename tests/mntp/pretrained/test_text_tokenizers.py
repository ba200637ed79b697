"""The one loader of text tokenizers: whole or refused, and told apart by content."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from mntp.pretrained.laion_clap import TEXT_TOKENIZER
from mntp.pretrained.text_tokenizers import load_text_tokenizer, tokenizer_facts

ROBERTA_WORDS = 50_265


def tokenizer_folder(path: Path, words: int, swapped: bool = False) -> Path:
    vocabulary = {f"word{n}": n for n in range(words - 2)} | {"<pad>": words - 2, "<unk>": words - 1}
    if swapped:
        vocabulary |= {"word0": 1, "word1": 0}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()  # type: ignore[assignment]  # a setter, which its stub does not say
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>")
    tokenizer.save_pretrained(path)
    # As RoBERTa's: an empty text has its marks.
    content = json.loads((path / "tokenizer.json").read_text())
    content["post_processor"] = {
        "type": "BertProcessing",
        "sep": ["<pad>", words - 2],
        "cls": ["<unk>", words - 1],
    }
    (path / "tokenizer.json").write_text(json.dumps(content))
    return path


def test_a_tokenizer_comes_from_a_folder_and_must_be_whole(tmp_path: Path) -> None:
    assert len(load_text_tokenizer(tokenizer_folder(tmp_path / "whole", ROBERTA_WORDS), ROBERTA_WORDS)) == ROBERTA_WORDS
    with pytest.raises(ValueError, match=f"cut: its text tokenizer has 100 words, its model {ROBERTA_WORDS}; expected"):
        load_text_tokenizer(tokenizer_folder(tmp_path / "cut", 100), ROBERTA_WORDS)


def test_vocabularies_of_one_size_are_told_apart(tmp_path: Path) -> None:
    one, same, other = (
        tokenizer_facts(load_text_tokenizer(tokenizer_folder(tmp_path / name, 200, swapped=swapped), 200))
        for name, swapped in (("one", False), ("same", False), ("other", True))
    )
    assert one == same != other


def test_a_tokenizer_that_is_nowhere_is_named_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    for source, message in (
        (tmp_path / "empty", r"empty: no tokenizer\.json there"),
        (TEXT_TOKENIZER, rf"{TEXT_TOKENIZER}: no such folder, not in the cache .* \(hf download {TEXT_TOKENIZER}\)"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            load_text_tokenizer(source, ROBERTA_WORDS)
        assert "\n" not in str(caught.value)
