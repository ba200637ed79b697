"""A tokenizer and a text encoder of the user's own package: prepared, stored, exported and decoded by dotted path."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from data_modules.store.store import INDEX, Store
from experiments.main import main
from mntp.audio.files import read_audio
from mntp.inference.streaming import Windows
from mntp.inference.text_to_audio import TextToAudio
from mntp.registry import ALLOWED
from mntp.systems import build_system
from mntp.tokenizers import build_tokenizer
from tests import own_parts
from tests.data_modules.folders import write_folder
from tests.models import plain_arguments_of

PACKAGE = "own_sounds"


@pytest.fixture
def forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """The package, to be found but not imported; the function brings it into this state again."""
    (tmp_path / PACKAGE).mkdir()
    (tmp_path / PACKAGE / "__init__.py").write_text(Path(own_parts.__file__).read_text())
    monkeypatch.syspath_prepend(str(tmp_path))

    def forget() -> None:
        sys.modules.pop(PACKAGE, None)
        monkeypatch.setenv(ALLOWED, "")

    forget()
    yield forget
    forget()


def mntp(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["mntp", *map(str, words)])
    with pytest.raises(SystemExit) as exit:
        main()
    return int(exit.value.code or 0)


def test_own_parts_by_their_dotted_path(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    forget: Callable[[], None],
) -> None:
    audio, out, model = tmp_path / "audio", tmp_path / "store", tmp_path / "model"
    table = write_folder(audio, {"a.wav": (1.04, "train"), "b.wav": (2.56, "val"), "c.wav": (0.4, "test")})
    tokenizer = ["--tokenizer", f"{PACKAGE}.BlockTokenizer", "--tokenizer.gain", 3.0, "--text", f"{PACKAGE}.VowelText"]
    words = ["prepare", "--captions", table, "--audio", audio, "--out", out, "--device", "cpu", *tokenizer]
    assert mntp(monkeypatch, *words) == 0  # what the user types is imported
    assert mntp(monkeypatch, *words) == 0  # it is there already
    index = json.loads((out / INDEX).read_text())
    assert index["tokenizer"]["class"] == index["settings"]["tokenizer"]["class"] == f"{PACKAGE}.BlockTokenizer"
    assert index["text"]["class"] == f"{PACKAGE}.VowelText"

    forget()
    store = Store(out)  # the store itself is read without the package
    assert [store.num_valid_tokens(row) for row in range(3)] == [13, 32, 5]
    preprocessing = store.preprocessing()
    with pytest.raises(
        ValueError, match=rf"tokenizer '{PACKAGE}.BlockTokenizer' .* --import {PACKAGE}, by MNTP_IMPORT="
    ):
        build_tokenizer(preprocessing["tokenizer"])
    assert PACKAGE not in sys.modules

    streams = {"pooled": {"dim": 5, "max_length": 1}, "words": {"dim": 5, "max_length": 4}}
    arguments = plain_arguments_of("AudioNTP") | {"token_dim": 8, "num_tokens": 32, "streams": streams}
    system = build_system("mntp.systems.AudioNTP", arguments)
    system.attach_preprocessing(preprocessing)
    __import__(PACKAGE)  # a user's own import in Python is a permission, too
    trained = TextToAudio(system.eval(), "cpu")
    assert (trained.slice_seconds, trained.max_seconds) == (0.08, 2.56)
    trained.save_pretrained(model)
    (expected,) = trained.generate(["a dog barks"], seed=1)
    assert expected.shape == (40_960,)
    joined = torch.cat(list(trained.stream("a dog barks", seed=1, windows=Windows(crossfade=0))))
    torch.testing.assert_close(joined, expected, atol=1e-4, rtol=1e-4)

    forget()
    sounds = tmp_path / "sounds"
    generate = ["generate", "a dog barks", "--ckpt", model, "--seed", 1, "--out", sounds]
    capsys.readouterr()
    assert mntp(monkeypatch, *generate) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert (
        f"which is not imported; a file alone can't decide that its code is run: allow it by --import {PACKAGE}"
        in error
    )
    assert PACKAGE not in sys.modules
    assert mntp(monkeypatch, *generate, "--import", PACKAGE) == 0
    assert os.environ[ALLOWED] == PACKAGE
    (sound,) = sounds.glob("*.wav")
    heard = read_audio(sound)
    torch.testing.assert_close(heard, expected.clamp(-1, 1), atol=1e-3, rtol=0)
