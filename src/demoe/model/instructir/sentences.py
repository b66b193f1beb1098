"""Sentences of a person's own, read by the files that come with the released network."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from demoe.model.checkpoint import read_state_dict
from demoe.model.instructir.encoder import SentenceEncoder, read_encoder
from demoe.model.instructir.head import TextHead, build_head
from demoe.model.protocol import Companion


def features_of(sentences: Sequence[str], companion: Companion) -> Tensor:
    """Return the features (N, F) of sentences.

    Raises
    ------
    WeightsError
        If the encoder is not on this machine, or damaged.
    """
    files = companion("model.safetensors"), companion("tokenizer.json")
    return _encoder(*files, tuple(file.stat().st_mtime_ns for file in files))(sentences)


def released_head(companion: Companion) -> TextHead:
    """Return the text head of the released network.

    Raises
    ------
    WeightsError
        If it is not on this machine, or damaged.
    """
    path = companion("lm_instructir-7d.pt")
    return build_head(read_state_dict(path)[0], str(path))


@functools.lru_cache(maxsize=1)
def _encoder(weights: Path, tokenizer: Path, _mtimes: tuple[int, ...]) -> SentenceEncoder:
    return read_encoder(weights, tokenizer)
