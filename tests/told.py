"""Tiny InstructIR networks with random weights, and what reads sentences for them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from torch.nn import functional as F

from demoe.choices import INSTRUCTIONS, named, to_record
from demoe.model import zoo
from demoe.model.checkpoint import write_weights
from demoe.model.instructir.config import NetworkConfig
from demoe.model.instructir.head import TextHead
from demoe.model.instructir.network import InstructIRNet

CONFIG = NetworkConfig(4, (1, 1), 1, (1, 1), text=6, instructions=3)
"""Two levels: a halo of 20 pixels on a grid of 4 keeps tiles small and yet exact."""

CHOICES = named(("noise", "haze", "rain"))
HIDDEN, LAYERS = 24, 2
WORDS = ("[UNK]", "[CLS]", "[SEP]", "remove", "the", "fog", "brighten", "it", "##s", ".")


def told_network(config: NetworkConfig = CONFIG, seed: int = 0) -> InstructIRNet:
    """Return a network all of whose parts have an effect."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = InstructIRNet(config)
        for name, parameter in network.named_parameters():
            if name.endswith(("beta", "gamma")):  # zeros at first: a block would change nothing
                nn.init.normal_(parameter, std=0.5)
            if name.endswith("fc.weight"):
                nn.init.normal_(parameter, std=3.0)
        network.instructions = F.normalize(torch.randn(config.instructions, config.text), dim=1)
    network.choices = CHOICES
    return network.eval().requires_grad_(False)


def told_weights(path: Path, seed: int = 0) -> Path:
    """Write such a network to ``path`` and return it."""
    metadata = {"choices": json.dumps(to_record(CHOICES))}
    write_weights(path, told_network(seed=seed).state_dict(), metadata)
    return path


def random_encoder(hidden: int = HIDDEN, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the tensors of a tiny BERT, by their names in files."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

    sizes = {"attention.self.query": (hidden, hidden), "attention.self.key": (hidden, hidden)}
    sizes |= {"attention.self.value": (hidden, hidden), "attention.output.dense": (hidden, hidden)}
    sizes |= {"intermediate.dense": (2 * hidden, hidden), "output.dense": (hidden, 2 * hidden)}
    tensors = {
        "embeddings.word_embeddings.weight": draw(len(WORDS), hidden),
        "embeddings.position_embeddings.weight": draw(16, hidden),
        "embeddings.token_type_embeddings.weight": draw(2, hidden),
    }
    norms = ["embeddings"]
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        for name, shape in sizes.items():
            tensors[f"{layer}.{name}.weight"] = draw(*shape)
            tensors[f"{layer}.{name}.bias"] = draw(shape[0])
        norms += [f"{layer}.attention.output", f"{layer}.output"]
    for name in norms:
        tensors[f"{name}.LayerNorm.weight"] = 1 + draw(hidden)
        tensors[f"{name}.LayerNorm.bias"] = draw(hidden)
    return tensors


def word_pieces() -> Tokenizer:
    """Return a tokenizer of the same kind as the released one, of a few words."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return tokenizer


def bring_reader(
    monkeypatch: pytest.MonkeyPatch, text: int = CONFIG.text, hidden: int = HIDDEN
) -> TextHead:
    """Put an encoder and a text head where the released ones would be brought by hand."""
    folder = zoo.cache_dir() / "instructir"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        head = TextHead(hidden, text, 3).eval().requires_grad_(False)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(head.state_dict(), folder / "lm_instructir-7d.pt")
    write_weights(folder / "model.safetensors", random_encoder(hidden), {})
    word_pieces().save(str(folder / "tokenizer.json"))
    release = zoo.RELEASES["instructir"]
    parts = (replace(f, size=(folder / f.name).stat().st_size) for f in release.parts)
    monkeypatch.setitem(zoo.RELEASES, "instructir", replace(release, parts=tuple(parts)))
    return head


def bring_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a tiny network with seven instructions, and its reader, in place of the released one."""
    bring_reader(monkeypatch, hidden=384)
    path = zoo.cache_dir() / "instructir.pt"
    config = replace(CONFIG, instructions=len(INSTRUCTIONS))
    metadata = {"choices": json.dumps(to_record(INSTRUCTIONS))}
    write_weights(path, told_network(config).state_dict(), metadata)
    release = zoo.RELEASES["instructir"]
    file = replace(release.file, size=path.stat().st_size)
    monkeypatch.setitem(zoo.RELEASES, "instructir", replace(release, file=file))


def a_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a smooth picture with noise: (height, width) float32 in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    smooth = 0.5 + 0.3 * np.sin(x / 9) * np.cos(y / 7)
    return np.clip(smooth + rng.normal(0, 0.1, (height, width)), 0, 1).astype(np.float32)
