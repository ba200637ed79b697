"""Initial weights: what is taken is equal, what is left is named with its reason, what doesn't fit is refused."""

import argparse
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mntp.backbones import CausalTransformer, MaskedEncoderDecoder
from mntp.batch import TextStream
from mntp.heads import DiffusionHead
from mntp.initial_weights import INITIAL_WEIGHTS, ImageMAR, InitialWeights
from mntp.masking import Fixed
from mntp.systems import AudioMAR, AudioMNTP, AudioNTP, AudioSystem
from tests.mntp.heads.mar_golden import CONFIG, public_layout, weight, write_checkpoint

SIZES = CONFIG["config"]
WEIGHTS = {key: weight(key) for key in CONFIG["keys"]}
CAUSAL: tuple[type[AudioSystem], ...] = (AudioNTP, AudioMNTP)


def build(
    cls: type[AudioSystem], dim: int = SIZES["width"], depth: int = 2 * SIZES["depth"], num_heads: int = 4, **sizes: Any
) -> Any:
    """A system of the golden model's width and depth, but of other tokens, prompt and head."""
    network = MaskedEncoderDecoder if cls is AudioMAR else CausalTransformer
    return cls(
        token_dim=3,
        num_tokens=5,
        streams={"pooled": TextStream(4, 2)},
        backbone=partial(network, dim=dim, depth=depth, num_heads=num_heads, **sizes),
        head=partial(DiffusionHead, width=8, depth=1),
        **({} if cls is AudioNTP else {"mask_ratio": Fixed(0.7)}),
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint-last.pth"
    write_checkpoint(path, WEIGHTS)
    return path


def is_taken(name: str) -> bool:
    return name.startswith(("encoder_blocks.", "encoder_norm.", "decoder_embed.", "decoder_blocks.", "decoder_norm."))


@pytest.mark.parametrize("cls", [AudioMAR, *CAUSAL])
@pytest.mark.parametrize("which", ["model_ema", "model"])
def test_blocks_norms_and_bridge_are_taken_and_nothing_else_changes(
    file: Path, cls: type[AudioSystem], which: Any
) -> None:
    system, fresh = build(cls), build(cls).state_dict()
    transfer = ImageMAR(file, which).apply(system)
    factor = 2 if which == "model" else 1
    expected = {f"backbone.{key}": factor * tensor for key, tensor in WEIGHTS.items() if is_taken(key)}
    for name, tensor in system.state_dict().items():
        assert torch.equal(tensor, expected.get(name, fresh[name])), name
    assert set(transfer.taken) == expected.keys()
    assert set(transfer.own) == fresh.keys() - expected.keys()
    assert set(transfer.left) == {key for key in WEIGHTS if not is_taken(key)}
    assert all(parameter.requires_grad for parameter in system.parameters())


@pytest.mark.parametrize("cls", CAUSAL)
def test_a_causal_model_runs_the_encoders_blocks_and_then_the_decoders(file: Path, cls: type[AudioSystem]) -> None:
    system, order = build(cls), []
    ImageMAR(file).apply(system)
    for name, module in system.backbone.named_modules():
        if name.count(".") == 1 and "blocks" in name:
            module.register_forward_hook(lambda block, _, __: order.append(block.mlp.fc1.bias.clone()))
    system.backbone(torch.zeros(1, 2, SIZES["width"]), torch.zeros(1, 4, 3), torch.arange(4)[None])
    halves = [(half, index) for half in ("encoder", "decoder") for index in range(SIZES["depth"])]
    expected = [WEIGHTS[f"{half}_blocks.{index}.mlp.fc1.bias"] for half, index in halves]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(order, expected, strict=True))


def test_without_a_bridge_its_weights_are_left_and_said_to_be(file: Path) -> None:
    system = build(AudioNTP, bridge=False)
    transfer = ImageMAR(file).apply(system)
    bridge = {name: why for name, why in transfer.left.items() if "no bridge" in why}
    assert bridge.keys() == {
        f"{part}.{kind}" for part in ("encoder_norm", "decoder_embed") for kind in ("weight", "bias")
    }
    assert not any("encoder_norm" in name or "decoder_embed" in name for name in system.state_dict())


def test_the_report_counts_by_part_and_gives_reasons(file: Path) -> None:
    transfer = ImageMAR(file).apply(build(AudioMNTP))
    text = str(transfer)
    assert text.startswith(f"initialised from ImageMAR {file} (model_ema)\n  taken: 54 tensors\n")
    assert "    backbone.encoder_blocks 24\n" in text
    assert "    class_emb 1: captions take the place of classes\n" in text
    assert "    backbone.bos 1\n" in text
    summary = transfer.summary()
    assert sum(summary["taken"].values()) == len(transfer.taken)
    assert sum(summary["own"].values()) == len(transfer.own)
    assert summary["left"].keys() == {key.partition(".")[0] for key in transfer.left}


@pytest.mark.parametrize(("dim", "depth"), [(768, 12), (1024, 16)], ids=["mar_base", "mar_large"])
@pytest.mark.parametrize("cls", [AudioMAR, *CAUSAL])
def test_the_public_models_fit_by_key_and_shape(tmp_path: Path, cls: type[AudioSystem], dim: int, depth: int) -> None:
    golden = {"dim": SIZES["width"], "depth": SIZES["depth"], "num_tokens": SIZES["grid"] ** 2, "num_classes": 5}
    head = {"head_width": SIZES["head_width"], "head_depth": SIZES["head_layers"]}
    layout = public_layout(**golden, **head, buffer=SIZES["buffer"], token_dim=SIZES["dim"])
    assert layout == CONFIG["keys"]  # the rule of names and shapes is that of the public code

    path = tmp_path / "checkpoint-last.pth"
    with torch.device("meta"):  # no values: the file has a few kilobytes
        write_checkpoint(path, {key: torch.empty(shape) for key, shape in public_layout(dim, depth).items()})
        system = build(cls, dim=dim, depth=2 * depth, num_heads=dim // 64)
        with pytest.raises(ValueError, match=f"MAR of width {dim} has {dim // 64} attention heads, the model has 8"):
            ImageMAR(path).apply(build(cls, dim=dim, depth=2 * depth, num_heads=8))
        transfer = ImageMAR(path).apply(system)
    assert len(transfer.taken) == 2 * depth * 12 + 6
    blocks = 2 * depth * (12 * dim**2 + 13 * dim)
    taken = sum(system.get_parameter(name).numel() for name in transfer.taken)
    assert taken == blocks + dim**2 + 5 * dim


class Harmful:
    """Runs code when a careless reader unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("ran",)


def broken(path: Path, kind: str) -> None:
    match kind:
        case "missing":
            pass
        case "text":
            path.write_text("not a checkpoint")
        case "cut":
            write_checkpoint(path, WEIGHTS)
            path.write_bytes(path.read_bytes()[:-1000])
        case "old format":
            torch.save({"model_ema": WEIGHTS}, path, _use_new_zipfile_serialization=False)
        case "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("a.txt", "text")
        case "list":
            torch.save([1], path)
        case "other keys":
            torch.save({"state_dict": WEIGHTS}, path)
        case "no tensors":
            torch.save({"model_ema": {"encoder_blocks.0": 3}}, path)
        case "other names":
            torch.save({"model_ema": {"blocks.0.weight": torch.zeros(2)}}, path)
        case "no average":
            write_checkpoint(path, WEIGHTS, average=False)
        case "code":
            write_checkpoint(path, WEIGHTS, args=Harmful())
        case "code in the options":
            write_checkpoint(path, WEIGHTS, args=argparse.Namespace(hook=Harmful()))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file of initial weights; set init: null"),
        ("text", "not a whole checkpoint of PyTorch 1.6 or later"),
        ("cut", "not a whole checkpoint of PyTorch 1.6 or later"),
        ("old format", "not a whole checkpoint of PyTorch 1.6 or later"),
        ("zip", "not a PyTorch checkpoint"),
        ("list", "expected a checkpoint's mapping, got list"),
        ("other keys", r"not a checkpoint of MAR's training: expected the keys 'model' and .* got \['state_dict'\]"),
        ("no tensors", "'model_ema' is no mapping of names to tensors"),
        ("other names", r"'model_ema' has no encoder_blocks, its first names are \['blocks.0.weight'\]"),
        ("no average", "'model_ema' is None, this training kept no average: set weights: model"),
        ("code", r"refused: .*holds objects beside tensors and plain values \(.*print"),
        ("code in the options", r"refused: .*holds objects beside tensors and plain values \(.*print"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str
) -> None:
    path = tmp_path / "file.pth"
    broken(path, kind)
    with pytest.raises(ValueError, match=message) as caught:
        ImageMAR(path).apply(build(AudioNTP))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"dim": 32}, r"encoder_blocks.0.norm1.weight is \[64\] in the file and \[32\] in the model: give the model"),
        (
            {"mlp_ratio": 2.0},
            r"0.mlp.fc1.weight is \[256, 64\] in the file and \[128, 64\] in the model",
        ),
        ({"depth": 2}, r"the file has decoder_blocks.1.\S+, the model has not: give the model the file's depth"),
        ({"depth": 6}, r"the model has decoder_blocks.2.\S+, the file has not: give the model the file's depth"),
    ],
)
def test_a_model_of_another_size_is_refused_and_stays_as_it_was(
    file: Path, sizes: dict[str, Any], message: str
) -> None:
    system, fresh = build(AudioNTP, **sizes), build(AudioNTP, **sizes).state_dict()
    with pytest.raises(ValueError, match=message):
        ImageMAR(file).apply(system)
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in system.state_dict().items())


def test_the_registry_holds_every_kind() -> None:
    assert set(INITIAL_WEIGHTS.values()) == set(InitialWeights.__subclasses__())
