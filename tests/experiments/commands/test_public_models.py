"""From sounds to sound through the paper's front end, by the suite's commands; models are tiny, in public layouts."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from data_modules.store.store import Store
from experiments.config.lightning_cli import SuiteCLI
from experiments.config.resolve import load_config, resolve
from experiments.main import main
from experiments.runs.score import _decoder
from mntp.audio.files import read_audio
from mntp.audio.log_mel import LogMel
from mntp.text import build_text_encoder
from mntp.tokenizers import AudioLDM, build_tokenizer
from tests.data_modules.folders import write_clips
from tests.public_models import shake_weights, weights_file, write_audioldm, write_clap, write_t5

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on small data

CONFIGS = Path(__file__).parents[3] / "experiments" / "configs"
Command = Callable[..., int]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    def run(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["mntp", *map(str, words)])
        with pytest.raises(SystemExit) as exit:
            main()
        return int(exit.value.code or 0)

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sounds, and models where `experiments/configs/prepare.yaml` looks for them: names on the hub, found locally."""
    monkeypatch.chdir(tmp_path)
    write_clips(tmp_path / "audio")
    write_audioldm(tmp_path / "cvssp" / "audioldm-s-full-v2")
    write_clap(tmp_path / "laion" / "clap-htsat-unfused")
    write_t5(tmp_path / "google" / "flan-t5-large")
    return tmp_path


def prepare(*more: object) -> list[object]:
    config = CONFIGS / "prepare.yaml"
    words = ["--captions", "audio/captions.csv", "--audio", "audio", "--out", "store"]
    words += ["--seconds", 0.32, "--sound_seconds", 0.32]
    return ["prepare", "--config", config, *words, *more]


def tiny(config: dict[str, Any]) -> dict[str, Any]:
    """A base config as it is, but for depth and width of the model, the clips' length, and the trainer."""
    model = config["model"]["init_args"]
    model["num_tokens"] = 8
    model["backbone"]["init_args"] |= {"dim": 16, "depth": 2, "num_heads": 2}
    model["head"]["init_args"] |= {"width": 8, "depth": 1, "num_noise_draws": 1}
    model["decoding"] |= {"sampling": {"num_steps": 2}}
    config["data"] |= {"store": "store", "batch_size": 3, "num_workers": 0}
    config["trainer"] = {
        "accelerator": "cpu",
        "logger": False,
        "max_steps": 2,
        "val_check_interval": 2,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "use_distributed_sampler": False,
        "callbacks": [{"class_path": "callbacks.SampleLogger"}, {"class_path": "callbacks.AudioWriter"}],
    }
    return resolve(config | {"init": None})


def test_from_sounds_to_sound(folder: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*prepare()) == 0
    store = Store(folder / "store")
    preprocessing = store.preprocessing()
    tokenizer, text = build_tokenizer(preprocessing["tokenizer"]), build_text_encoder(preprocessing["text"])
    for row, clip in enumerate(store.clips):
        assert store.tokens(row).shape == (8, 128)
        states = text.encode([clip.caption])
        for name, stream in store.text(row).items():
            torch.testing.assert_close(stream, states[name][0], atol=1e-2, rtol=1e-2)
        if clip.split != "train":
            tokens = tokenizer.encode(read_audio(store.audio_path(row))[None])[0]
            torch.testing.assert_close(store.tokens(row), tokens, atol=1e-2, rtol=1e-2)
    assert (folder / "store" / "tokenizer.safetensors").stat().st_size < 100
    assert {name: entry["path"] for name, entry in _public_models(store.index).items()} == {
        "tokenizer": "cvssp/audioldm-s-full-v2",
        "pooled": "laion/clap-htsat-unfused",
        "words": "google/flan-t5-large",
    }

    suite = SuiteCLI(tiny(load_config(CONFIGS / "base" / "audio_mntp.yaml")), run=False)
    suite.trainer.fit(suite.model, datamodule=suite.datamodule)
    assert len(list((folder / "samples").glob("step-000002-*.wav"))) == 3
    suite.trainer.save_checkpoint(folder / "run" / "checkpoints" / "final.ckpt", weights_only=True)
    checkpoint = torch.load(folder / "run" / "checkpoints" / "final.ckpt", weights_only=True)
    assert checkpoint["preprocessing"]["tokenizer"]["state"] == {}
    assert not any(name.startswith(("vae", "vocoder")) for name in checkpoint["state_dict"])
    suite.trainer.predict(suite.model, datamodule=suite.datamodule, return_predictions=False)
    assert len(list((folder / "predictions").glob("*.wav"))) == 2

    assert command("generate", "a dog barks", "", "雨 🔔", "--ckpt", "run", "--out", "generated") == 0
    waveforms = [read_audio(path) for path in sorted((folder / "generated").glob("*.wav"))]
    assert [len(waveform) for waveform in waveforms] == [5120] * 3
    assert LogMel()(torch.stack(waveforms)).std() > 0.1

    decode = _decoder(folder / "run", store, {"generation": {"source": "reconstruction"}}, None)  # type: ignore[arg-type]  # unused
    assert decode([0, 1]).equal(tokenizer.decode(torch.stack([store.tokens(0), store.tokens(1)])))

    weights_file(folder / "cvssp" / "audioldm-s-full-v2" / "vocoder").unlink()
    capsys.readouterr()
    assert command("generate", "a dog barks", "--ckpt", "run", "--out", "generated") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: cvssp/audioldm-s-full-v2/vocoder: no model.safetensors there")


def _public_models(index: dict[str, Any]) -> dict[str, dict[str, Any]]:
    parts = {name: part["settings"] for name, part in index["text"]["settings"].items()}
    return {"tokenizer": index["tokenizer"]["settings"], **parts}


def test_the_same_weights_elsewhere_make_the_same_store(
    folder: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*prepare()) == 0
    fingerprint = Store(folder / "store").fingerprint
    moved = (folder / "cvssp" / "audioldm-s-full-v2").rename(folder / "moved")
    assert command(*prepare("--tokenizer.path", moved)) == 0
    assert Store(folder / "store").fingerprint == fingerprint
    assert command(*prepare("--tokenizer.path", moved, "--out", "other")) == 0
    assert Store(folder / "other").fingerprint == fingerprint
    shake_weights(moved / "vae", "decoder.conv_in.bias")
    capsys.readouterr()
    assert command(*prepare("--tokenizer.path", moved)) == 2
    (error,) = capsys.readouterr().err.splitlines()
    old = _public_models(Store(folder / "store").index)["tokenizer"]["weights"]
    assert f"was prepared with tokenizer.weights = '{old}', asked for '{AudioLDM(str(moved)).weights}'" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tokenizer.path", "no/model"], "error: no/model: no such folder, not in the cache"),
        (["--text.words.path", "no/model"], "error: no/model: no such folder, not in the cache"),
        (["--tokenizer", "AudioLMD"], "error: mntp prepare: 'AudioLMD' is not a class that tokenizer accepts; did you"),
        (["--tokenizer.pth", "x"], "error: mntp prepare: 'pth' is not a key that tokenizer accepts; did you mean"),
        (["--text.pooled", "ClapTxt"], "error: mntp prepare: 'ClapTxt' is not a class that text.pooled accepts; did"),
        (["--tokenizer.posterior", "mode"], "error: mntp prepare: tokenizer.posterior: Expected"),
        (["--token-dim", 8], "error: --token_dim 8 is for MelTokenizer; a token of AudioLDM has 128 values"),
        (["--seconds", 1.0], "error: a clip of 16000 samples does not fill whole frames"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    folder: Path,
    command: Command,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[object],
    message: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert command(*prepare(*words)) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith(message)
    assert not (folder / "store").exists()


def test_the_config_gives_what_the_base_configs_expect() -> None:
    given = yaml.safe_load((CONFIGS / "prepare.yaml").read_text())
    assert given["seconds"] * 16_000 / 2560 * 4 == 256
    for path in (CONFIGS / "base").glob("*.yaml"):
        expected = load_config(path)["model"]["init_args"]
        assert (expected["num_tokens"], expected["token_dim"]) == (256, 128)
