"""LAION's CLAP: every name of the public files, in both sizes; files that don't fit; tokenizers that aren't whole."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import ClapModel

from mntp.pretrained.laion_clap import convert, hf_names, load_laion_clap
from tests.mntp.pretrained.layouts import LAYOUTS, layout, tensors

SIZES = ("clap_htsat_base", "clap_htsat_tiny")
NUMBER = re.compile(r"((?:layers?|blocks)\.)(\d+)(?=\.)")


def expected_names(name: str) -> tuple[str, ...]:
    """From the dumped map, which has `#` for the numbers of layers and blocks."""
    numbers = [found[2] for found in NUMBER.finditer(name)]
    names = []
    for pattern in LAYOUTS["clap_names"][NUMBER.sub(r"\1#", name)]:
        fill = iter(numbers)
        names.append(re.sub("#", lambda _, fill=fill: next(fill), pattern))
    return tuple(names)


def write(path: Path, state: dict[str, Tensor], **more: Any) -> Path:
    """As LAION's training writes it."""
    state = {"text_branch.embeddings.position_ids": torch.empty(1, 514, dtype=torch.int64, device="meta"), **state}
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 15, "name": "x", "state_dict": prefixed, "optimizer": {"lr": np.float64(1e-4)}, **more}, path)
    return path


def load(path: Path) -> ClapModel:
    with torch.device("meta"):  # the files of these tests hold no values
        return load_laion_clap(path)


@pytest.mark.parametrize("size", SIZES)
def test_every_name_is_translated_as_the_dumped_map_says(size: str) -> None:
    names = layout(size)
    assert len(names) == {"clap_htsat_base": 504, "clap_htsat_tiny": 417}[size]
    assert {name: hf_names(name) for name in names} == {name: expected_names(name) for name in names}
    assert hf_names("text_branch.embeddings.position_ids") == ()


@pytest.mark.parametrize("size", SIZES)
def test_the_public_files_fit_by_name_and_shape(tmp_path: Path, size: str) -> None:
    model = load(write(tmp_path / "clap.pt", tensors(size)))
    audio, text = model.config.audio_config, model.config.text_config
    depth, width = {"clap_htsat_base": (12, 128), "clap_htsat_tiny": (6, 96)}[size]
    assert list(audio.depths) == [2, 2, depth, 2] and audio.patch_embeds_hidden_size == width
    assert audio.hidden_size == 8 * width and not audio.enable_fusion
    norms = [module for module in model.text_model.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-5} == {text.layer_norm_eps}
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())


def test_stacked_queries_keys_and_values_are_cut_in_their_order() -> None:
    stacked = torch.arange(12.0).view(6, 2)
    name = "audio_branch.layers.0.blocks.1.attn.qkv.weight"
    cut = convert({name: stacked, "audio_branch.head.bias": torch.ones(3), "logit_scale_a": torch.tensor(2.0)})
    prefix = "audio_model.audio_encoder.layers.0.blocks.1.attention.self"
    rows = {"query": stacked[:2], "key": stacked[2:4], "value": stacked[4:]}
    assert cut.keys() == {f"{prefix}.{part}.weight" for part in rows} | {"logit_scale_a"}
    assert all(torch.equal(cut[f"{prefix}.{part}.weight"], part_rows) for part, part_rows in rows.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio_branch.norm.bias": None}, r"lacks audio_model\.audio_encoder\.norm\.bias"),
        ({"audio_branch.layers.1.blocks.0.attn.qkv.bias": None}, r"lacks .*key\.bias, .*query\.bias, .*value\.bias"),
        (
            {name: None for name in layout("clap_htsat_tiny") if ".layers.2.blocks.5." in name},
            r"lacks audio_model\.audio_encoder\.layers\.2\.blocks\.5\..* in all\)",
        ),
        ({"text_branch.extra": (2,)}, r"has unexpected tensors: text_model\.extra"),
        ({"text_projection.0.bias": (3,)}, r"for text_projection\.linear1\.bias \(\[3\], expected \[512\]\)"),
        ({"audio_branch.patch_embed.proj.weight": None}, r"has no audio_branch\.patch_embed\.proj\.weight"),
        ({"audio_branch.patch_embed.proj.weight": (64, 1, 4, 4)}, "HTSAT has width 96 or 128, the file's has 64"),
        ({"audio_branch.patch_embed.mel_conv2d.weight": (96, 1, 4, 12)}, "a CLAP with fusion"),
    ],
    ids=["missing", "missing stack", "missing block", "extra", "reshaped", "no HTSAT", "other HTSAT", "fusion"],
)
def test_a_file_of_another_layout_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    changed = {name: shape and torch.empty(shape, device="meta") for name, shape in change.items()}
    state = {name: value for name, value in (tensors("clap_htsat_tiny") | changed).items() if value is not None}
    with pytest.raises(ValueError, match=rf"clap\.pt: .*{message}"):
        load(write(tmp_path / "clap.pt", state))


def test_another_checkpoint_and_code_are_refused(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt: expected the key 'state_dict', got model"):
        load(tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"code\.pt: refused: .*pathlib"):
        load(write(tmp_path / "code.pt", {}, folder=Path("x")))
