"""The sentence encoder that InstructIR was trained on top of: a small BERT, run by torch.

Devlin et al. 2018 (arXiv 1810.04805) as in ``TaylorAI/bge-micro-v2``: encoder layers that normalise
after each addition, GELU without approximation, and the mean over all tokens as what a sentence is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from demoe.errors import WeightsError
from demoe.model.checkpoint import read_state_dict

HEADS = 12
"""Attention heads, which the tensors do not tell."""

EPS = 1e-12


class SentenceEncoder:
    """Turns sentences into features.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Under the names of Hugging Face's BERT.
    tokenizer : Tokenizer
        Of its vocabulary.
    heads : int
        Attention heads.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], tokenizer: Tokenizer, heads: int = HEADS
    ) -> None:
        self._tensors, self._tokenizer, self._heads = tensors, tokenizer, heads
        self._layers = len({k.split(".")[2] for k in tensors if k.startswith("encoder.layer.")})
        tokenizer.no_padding()
        tokenizer.enable_truncation(len(self._tensors["embeddings.position_embeddings.weight"]))

    @torch.inference_mode()
    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """Return the features (N, C) of sentences, of length 1.

        Each is read by itself, so that its features do not depend on the others.
        """
        return torch.stack([self._read(sentence) for sentence in sentences])

    def _read(self, sentence: str) -> Tensor:
        tokens = torch.tensor(self._tokenizer.encode(sentence).ids)
        return F.normalize(self.hidden(tokens).mean(dim=0), dim=0)

    def hidden(self, tokens: Tensor) -> Tensor:
        """Return the last hidden states (L, C) of the tokens (L,) of a sentence."""
        words, places, kinds = (
            self._tensors[f"embeddings.{name}_embeddings.weight"]
            for name in ("word", "position", "token_type")
        )
        x = self._norm(words[tokens] + places[: len(tokens)] + kinds[0], "embeddings")
        for number in range(self._layers):
            layer = f"encoder.layer.{number}"
            x = self._norm(x + self._attend(x, f"{layer}.attention"), f"{layer}.attention.output")
            wide = F.gelu(self._linear(x, f"{layer}.intermediate.dense"))
            x = self._norm(x + self._linear(wide, f"{layer}.output.dense"), f"{layer}.output")
        return x

    def _attend(self, x: Tensor, name: str) -> Tensor:
        """Let every token look at all others: (L, C) to the same."""
        query, key, value = (
            self._linear(x, f"{name}.self.{part}").unflatten(1, (self._heads, -1)).transpose(0, 1)
            for part in ("query", "key", "value")
        )
        seen = F.scaled_dot_product_attention(query, key, value)
        return self._linear(seen.transpose(0, 1).flatten(1), f"{name}.output.dense")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = (self._tensors[f"{name}.LayerNorm.{part}"] for part in ("weight", "bias"))
        return F.layer_norm(x, weight.shape, weight, bias, EPS)


def read_encoder(weights: Path, tokenizer: Path) -> SentenceEncoder:
    """Read an encoder from its two files, as tensors and words only.

    Raises
    ------
    WeightsError
        If one of them is damaged or of another kind.
    """
    tensors, _ = read_state_dict(weights)
    try:
        words = Tokenizer.from_file(str(tokenizer))
    except Exception as error:  # the library raises nothing more specific
        raise WeightsError(f"The tokenizer {tokenizer} cannot be read ({error}).") from None
    try:
        encoder = SentenceEncoder(tensors, words)
        encoder(["a"])
    except (KeyError, IndexError, RuntimeError) as error:
        raise WeightsError(
            f"{weights} is no sentence encoder that belongs to {tokenizer} ({error})."
        ) from None
    return encoder
