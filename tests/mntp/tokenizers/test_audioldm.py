"""AudioLDM's tokens: their order and its inverse, the mel that is heard, lengths, and checkpoints that don't fit."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mntp.audio.log_mel import LOG_FLOOR, LogMel, normalise
from mntp.tokenizers import AudioLDM, build_tokenizer, tokenizer_spec
from mntp.tokenizers.audioldm import patchify, unpatchify
from tests.public_models import (
    VAE,
    VOCODER,
    change_config,
    drop_weights,
    shake_weights,
    truncate_weights,
    weights_file,
    write_audioldm,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_audioldm(tmp_path_factory.mktemp("audioldm"))


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> AudioLDM:
    return AudioLDM(str(checkpoint))


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def sound(clips: int = 2, samples: int = 5120, seed: int = 0) -> Tensor:
    return normalise(torch.randn(clips, samples, generator=torch.Generator().manual_seed(seed)))


def test_patches_are_time_outer_frequency_inner_and_values_channel_time_frequency() -> None:
    latents = torch.randn(2, 8, 12, 16)
    tokens = patchify(latents)
    assert tokens.shape == (2, 12, 128)
    for row in range(3):
        for column in range(4):
            for channel in range(8):
                for p_t in range(4):
                    for p_f in range(4):
                        value = tokens[:, row * 4 + column, channel * 16 + p_t * 4 + p_f]
                        assert value.equal(latents[:, channel, row * 4 + p_t, column * 4 + p_f])
    assert unpatchify(tokens).equal(latents)


@pytest.mark.parametrize("seconds", [0.16, 0.48, 10.24])
def test_lengths_are_exact(tokenizer: AudioLDM, seconds: float) -> None:
    samples = round(seconds * 16_000)
    tokens = tokenizer.encode(sound(1, samples))
    assert tokens.shape == (1, round(seconds / 0.04), 128)
    assert tokenizer.decode(tokens).shape == (1, samples)


def test_tokens_are_the_scaled_posterior_mean_of_the_log_mel(tokenizer: AudioLDM) -> None:
    waveform = sound()
    with torch.no_grad():
        moments = tokenizer.vae.quant_conv(tokenizer.vae.encoder(LogMel()(waveform)[:, None]))
    expected = patchify(moments[:, :8] * VAE["scaling_factor"])
    torch.testing.assert_close(tokenizer.encode(waveform), expected, atol=1e-5, rtol=1e-5)


def test_padding_is_heard_as_the_floor_of_the_mel(tokenizer: AudioLDM, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Tensor] = []
    encode = tokenizer.vae.encode
    monkeypatch.setattr(tokenizer.vae, "encode", lambda mel: heard.append(mel) or encode(mel))
    waveform = torch.zeros(1, 163_840)
    waveform[:, :160_000] = sound(1, 160_000)
    tokenizer.encode(waveform)
    assert heard[0].shape == (1, 1, 1024, 64)
    assert heard[0][0, 0, 1004:].eq(math.log(LOG_FLOOR)).all()
    assert heard[0][0, 0, :1000].gt(math.log(LOG_FLOOR)).all()


def test_decoding_is_vae_then_vocoder_cut_at_the_end(tokenizer: AudioLDM) -> None:
    tokens = tokenizer.encode(sound(1, 163_840))
    with torch.no_grad():
        mel = tokenizer.vae.decode(unpatchify(tokens) / VAE["scaling_factor"]).sample
        waveform = tokenizer.vocoder(mel[:, 0])
    assert waveform.shape == (1, 163_872)
    decoded = tokenizer.decode(tokens)
    assert waveform.std() > 1e-3
    torch.testing.assert_close(decoded, waveform[:, :163_840], atol=1e-6, rtol=1e-5)


def test_the_scaling_factor_is_the_checkpoints_own(copy: Path, tokenizer: AudioLDM) -> None:
    change_config(copy / "vae", scaling_factor=1.4)
    other = AudioLDM(str(copy))
    tokens = tokenizer.encode(sound())
    torch.testing.assert_close(other.encode(sound()), 2 * tokens)
    torch.testing.assert_close(other.decode(2 * tokens), tokenizer.decode(tokens))
    assert other.weights != tokenizer.weights, "the same tensors encode otherwise"


def test_a_clip_does_not_depend_on_its_neighbours(checkpoint: Path) -> None:
    waveforms = sound(3)
    for posterior in ("mean", "sample"):
        tokenizer = AudioLDM(str(checkpoint), posterior)
        tokens = tokenizer.encode(waveforms)
        assert tokenizer.encode(waveforms[1:2]).equal(tokens[1:2])
        assert tokenizer.encode(waveforms.flip(0)).equal(tokens.flip(0))
        assert tokenizer.decode(tokens[1:2]).equal(tokenizer.decode(tokens)[1:2])


def test_samples_of_the_posterior_are_a_function_of_seed_and_sound(checkpoint: Path) -> None:
    mean = AudioLDM(str(checkpoint))
    tokens = {seed: AudioLDM(str(checkpoint), "sample", seed).encode(sound(4, 20_480)) for seed in (0, 1)}
    with torch.no_grad():
        posterior = mean.vae.encode(LogMel()(sound(4, 20_480))[:, None]).latent_dist
    noise = {seed: (unpatchify(each) / 0.7 - posterior.mean) / posterior.std for seed, each in tokens.items()}
    assert AudioLDM(str(checkpoint), "sample", 0).encode(sound(4, 20_480)).equal(tokens[0])
    for each in noise.values():
        assert each.mean().abs() < 0.05
        assert each.std().item() == pytest.approx(1, abs=0.05)
    pairs = torch.stack([noise[0][0], noise[0][1], noise[1][0]]).flatten(1)
    assert (torch.corrcoef(pairs) - torch.eye(3)).abs().max() < 0.1, "other sounds and seeds have other noise"


def test_single_precision_whatever_is_around(tokenizer: AudioLDM) -> None:
    tokens = tokenizer.encode(sound())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tokenizer.encode(sound()).equal(tokens)
        assert tokenizer.decode(tokens).equal(tokenizer.decode(tokens.clone()))
        assert tokenizer.decode(tokens).dtype == torch.float32
    assert torch.is_grad_enabled()
    assert not tokenizer.decode(tokens).requires_grad


def test_a_spec_holds_no_weights_but_finds_them_again(tokenizer: AudioLDM, checkpoint: Path) -> None:
    spec = tokenizer_spec(tokenizer)
    assert spec["state"] == {}
    assert spec["settings"] == {"path": str(checkpoint), "posterior": "mean", "seed": 0, "weights": tokenizer.weights}
    twin = build_tokenizer(spec)
    assert twin.encode(sound()).equal(tokenizer.encode(sound()))
    assert not twin.training
    with pytest.raises(ValueError, match=f"fingerprint {tokenizer.fingerprint()}, expected 000000000000"):
        build_tokenizer(spec | {"fingerprint": "0" * 12})


def test_the_fingerprint_covers_content_and_not_its_place_or_format(copy: Path, tokenizer: AudioLDM) -> None:
    from safetensors.torch import load_file

    path = weights_file(copy / "vae")
    torch.save(load_file(path), copy / "vae" / "diffusion_pytorch_model.bin")
    path.unlink()
    assert AudioLDM(str(copy)).fingerprint() == tokenizer.fingerprint()
    assert AudioLDM(str(copy), posterior="sample").fingerprint() != tokenizer.fingerprint()


@pytest.mark.parametrize("part", ["vae", "vocoder"])
def test_other_weights_at_the_same_place_are_refused_with_both_hashes(copy: Path, part: str) -> None:
    spec = tokenizer_spec(AudioLDM(str(copy)))
    shake_weights(copy / part, {"vae": "decoder.conv_in.bias", "vocoder": "conv_pre.bias"}[part])
    found = AudioLDM(str(copy)).weights
    with pytest.raises(ValueError, match=f"{copy}: holds weights {found}, expected {spec['settings']['weights']}"):
        build_tokenizer(spec)


def test_attention_weights_by_their_old_names_are_found(copy: Path, tokenizer: AudioLDM) -> None:
    """The public VAEs were saved by a diffusers that had other names for the attention's layers."""
    from safetensors.torch import load_file, save_file

    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    path = weights_file(copy / "vae")
    tensors = {}
    for name, tensor in load_file(path).items():
        for new, before in old.items():
            name = name.replace(new, before)
        tensors[name] = tensor
    assert "encoder.mid_block.attentions.0.query.weight" in tensors
    save_file(tensors, path, metadata={"format": "pt"})
    assert AudioLDM(str(copy)).weights == tokenizer.weights


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda at: shutil.rmtree(at / "vocoder"), r"vocoder: no such folder; expected .* in the hub's layout"),
        (lambda at: (at / "vae" / "config.json").unlink(), r"vae: no config.json there"),
        (lambda at: weights_file(at / "vae").unlink(), r"vae: no model.safetensors there \(nor "),
        (lambda at: truncate_weights(at / "vae"), r"vae: can't be loaded as AutoencoderKL"),
        (lambda at: truncate_weights(at / "vocoder"), r"vocoder: can't be loaded as SpeechT5HifiGan"),
        (lambda at: weights_file(at / "vae").write_bytes(b""), r"vae: can't be loaded as AutoencoderKL"),
        (lambda at: (at / "vae" / "config.json").write_text("{"), r"vae: can't be loaded as AutoencoderKL"),
        (lambda at: drop_weights(at / "vae", "decoder.conv_in.weight"), r"lacks 1 weights of AutoencoderKL \(decoder"),
        (lambda at: drop_weights(at / "vocoder", "conv_pre.bias"), r"lacks 1 weights of SpeechT5HifiGan \(conv_pre"),
        (lambda at: change_config(at / "vae", latent_channels=4), r"vae: can't be loaded as AutoencoderKL"),
    ],
)
def test_a_damaged_checkpoint_is_one_line(copy: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(copy)
    with pytest.raises(ValueError, match=message) as caught:
        AudioLDM(str(copy))
    assert "\n" not in str(caught.value)
    assert str(copy) in str(caught.value)


@pytest.mark.parametrize(
    ("vae", "vocoder", "message"),
    [
        ({"latent_channels": 4}, {}, r"its VAE is .*'latent_channels': 4.*, expected .*'latent_channels': 8"),
        ({"in_channels": 3, "out_channels": 3}, {}, r"its VAE is .*'in_channels': 3.*, expected .*'in_channels': 1"),
        ({"block_out_channels": (4, 8, 8, 8)}, {}, r"its VAE is .*'downsampling': 8.*, expected .*'downsampling': 4"),
        ({}, {"model_in_dim": 80}, r"its vocoder is .*'mel bands': 80.*, expected .*'mel bands': 64"),
        (
            {},
            {"sampling_rate": 22_050},
            r"its vocoder is .*'sampling_rate': 22050.*, expected .*'sampling_rate': 16000",
        ),
        ({}, {"upsample_rates": [4, 4, 2, 2, 2]}, r"its vocoder is .*'hop': 128.*, expected .*'hop': 160"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused_with_both_specifications(
    tmp_path: Path, vae: dict[str, Any], vocoder: dict[str, Any], message: str
) -> None:
    write_audioldm(tmp_path, vae, vocoder)
    with pytest.raises(ValueError, match=message):
        AudioLDM(str(tmp_path))


def test_misuse_is_answered_in_words(tokenizer: AudioLDM, checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="posterior: got 'mode', expected 'mean' or 'sample'"):
        AudioLDM(str(checkpoint), posterior="mode")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2561 samples does not fill"):
        tokenizer.encode(torch.zeros(1, 2561))
    for shape in [(1, 6, 128), (1, 8, 64), (8, 128)]:
        with pytest.raises(ValueError, match=r"can't be decoded; expected \[B, multiple of 4, 128\]"):
            tokenizer.decode(torch.zeros(shape))


def test_names_and_shapes_of_the_public_models() -> None:
    """Known tensors of cvssp/audioldm-s-full-v2, against what the settings that are tested here give in full size."""
    from diffusers import AutoencoderKL
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    sizes = {"block_out_channels": (128, 256, 512), "layers_per_block": 2, "norm_num_groups": 32}
    kernels = {"resblock_kernel_sizes": [3, 7, 11], "resblock_dilation_sizes": [[1, 3, 5]] * 3}
    with torch.device("meta"):
        vae = AutoencoderKL(**VAE | sizes | blocks)
        vocoder = SpeechT5HifiGan(SpeechT5HifiGanConfig(**VOCODER | kernels | {"upsample_initial_channel": 1024}))
        latents = vae.encode(torch.zeros(1, 1, 1024, 64)).latent_dist.mean
        assert latents.shape == (1, 8, 256, 16)
        assert vae.decode(latents).sample.shape == (1, 1, 1024, 64)
        assert vocoder(torch.zeros(1, 1024, 64)).shape == (1, 163_872)
    shapes = {name: tuple(tensor.shape) for name, tensor in (vae.state_dict() | vocoder.state_dict()).items()}
    known = {
        "encoder.conv_in.weight": (128, 1, 3, 3),
        "encoder.down_blocks.2.resnets.1.conv2.weight": (512, 512, 3, 3),
        "encoder.mid_block.attentions.0.to_q.weight": (512, 512),
        "encoder.conv_out.weight": (16, 512, 3, 3),
        "quant_conv.weight": (16, 16, 1, 1),
        "post_quant_conv.weight": (8, 8, 1, 1),
        "decoder.up_blocks.2.resnets.2.conv1.weight": (128, 128, 3, 3),
        "decoder.conv_out.weight": (1, 128, 3, 3),
        "conv_pre.weight": (1024, 64, 7),
        "upsampler.0.weight": (1024, 512, 16),
        "upsampler.4.weight": (64, 32, 4),
        "resblocks.14.convs2.2.weight": (32, 32, 11),
        "conv_post.weight": (1, 32, 7),
        "mean": (64,),
    }
    assert known.items() <= shapes.items()
