"""Tiny systems and batches for tests, in float64 where exactness is asked for."""

from functools import partial
from typing import Any

import torch

from mntp.backbones import CausalTransformer, MaskedEncoderDecoder
from mntp.batch import TextStates, TextStream, TokenBatch
from mntp.conditioning.guidance import Guidance
from mntp.heads import HEADS, Head
from mntp.masking import Fixed
from mntp.samplers import Decoding, MaskedDecoding, ParallelDecoding
from mntp.systems import AudioMAR, AudioMNTP, AudioNTP, AudioSystem

N, D = 12, 3
SIZES = {"dim": 16, "depth": 2, "num_heads": 2, "dropout": 0.0}
HEAD_SIZES: dict[str, dict[str, int]] = {
    "DiffusionHead": {"num_noise_draws": 2},
    "FlowMatchingHead": {"num_noise_draws": 2},
    "MixtureHead": {"num_components": 3},
}
SAMPLING: dict[str, dict[str, Any]] = {"MixtureHead": {}}  # of other heads: a few steps
DECODING: dict[str, Any] = {"sampling": {"num_steps": 4}, "guidance": Guidance(2.0)}

DECODINGS: dict[type[AudioSystem], type[Decoding]] = {
    AudioNTP: Decoding,
    AudioMNTP: ParallelDecoding,
    AudioMAR: MaskedDecoding,
}

# Every kind of row of Table 3, and AudioMNTP in random order: system, arguments that make it so.
ROWS: dict[str, tuple[type[AudioSystem], dict[str, Any]]] = {
    "A": (AudioNTP, {}),
    "C": (AudioNTP, {"masking_mode": "zero", "mask_ratio": Fixed(0.7)}),
    "D": (AudioNTP, {"masking_mode": "gaussian", "mask_ratio": Fixed(0.5)}),
    "E": (AudioNTP, {"masking_mode": "drop", "mask_ratio": Fixed(0.5)}),
    "G": (AudioMNTP, {"mask_ratio": Fixed(0.5)}),
    "I": (AudioMNTP, {"mask_ratio": Fixed(0.5), "target_position_embedding": False}),
    "shuffled": (AudioMNTP, {"mask_ratio": Fixed(0.2), "shuffled": True}),
    "K": (AudioMAR, {"mask_ratio": Fixed(0.7)}),
}


def tiny_system(
    row: str = "G", seed: int = 0, head: str | type[Head] = "DiffusionHead", **arguments: Any
) -> AudioSystem:
    """A system of a few thousand parameters, with every zero-initialised layer shaken so that nothing is inert."""
    cls, own = ROWS[row]
    masked = cls is AudioMAR
    sampling = SAMPLING.get(head, DECODING["sampling"]) if isinstance(head, str) else {}
    parts: dict[str, Any] = {
        "backbone": partial(MaskedEncoderDecoder if masked else CausalTransformer, **SIZES),
        "head": partial(HEADS[head], width=8, depth=1, **HEAD_SIZES[head]) if isinstance(head, str) else head,
        "decoding": DECODINGS[cls](**{**DECODING, "sampling": sampling}),
        "seed": seed,
    }
    system = cls(
        token_dim=D,
        num_tokens=N,
        streams={"pooled": TextStream(5, 1), "words": TextStream(4, 3)},
        **{**parts, **own, **arguments},
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in system.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return system


def tiny_batch(batch: int = 4, seed: int = 0) -> TokenBatch:
    """Random clips with captions of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.arange(batch) % 3 + 1
    return TokenBatch(
        tokens=torch.randn(batch, N, D, generator=generator),
        valid=torch.arange(N) < (torch.arange(batch) % N + 1)[:, None],
        text={
            "pooled": TextStates(torch.randn(batch, 1, 5, generator=generator), torch.ones(batch, dtype=torch.long)),
            "words": TextStates(torch.randn(batch, 3, 4, generator=generator), lengths),
        },
        index=torch.arange(batch) + 10,
        captions=["a tone"] * batch,
    )
