"""Captions -> indices for the text models of transformers."""

from typing import Any

import torch
from torch import Tensor


def token_batch(
    tokenizer: Any, captions: list[str], max_length: int, device: torch.device
) -> tuple[dict[str, Tensor], list[int]]:
    """Tokenize captions of any kind: empty, longer than `max_length`, in any script.

    Args:
        tokenizer: of transformers.
        captions: B texts.
        max_length: to which a caption is cut; its end mark is kept.
        device: of the result.

    Returns:
        `input_ids` and `attention_mask` [B, L], filled up at the end; and how many of the L are real for each caption.
    """
    # Half of a surrogate pair, as a shell can hand it over, is no text to the tokenizers; U+FFFD stands for it.
    texts = [caption.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for caption in captions]
    batch = tokenizer(
        texts,
        padding=True,
        padding_side="right",
        truncation=True,
        max_length=max_length,
        return_attention_mask=True,
        return_tensors="pt",
    )
    mask = batch["attention_mask"]
    return {"input_ids": batch["input_ids"].to(device), "attention_mask": mask.to(device)}, mask.sum(dim=1).tolist()
