"""From the features of a sentence to the embedding that the image network is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from torch import Tensor, nn
from torch.nn import functional as F

from demoe.choices import Choice
from demoe.errors import WeightsError
from demoe.model.checkpoint import fill
from demoe.model.protocol import Companion


class TextHead(nn.Module):
    """What was learnt with the image network, on top of a sentence encoder that was not.

    See arXiv 2401.16468, section 3.1.

    Parameters
    ----------
    features, text, classes : int
        Length of what the encoder gives for a sentence and of the embedding, and the number of
        degradations that are told apart.
    """

    def __init__(self, features: int, text: int, classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, text)
        self.fc2 = nn.Linear(text, classes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings and what they were learnt to mean.

        Parameters
        ----------
        features : Tensor
            (N, features): what the encoder gives for sentences, of length 1.

        Returns
        -------
        embedding : Tensor
            (N, text), of length 1.
        logits : Tensor
            (N, classes): scores of the degradations; the image network does not see them.
        """
        embedding = F.normalize(self.fc1(features), dim=1)
        return embedding, self.fc2(embedding)

    def directions(self) -> Tensor:
        """Return the embeddings (classes, text) that mean one degradation each, most clearly.

        Those along the weights of its class. Where sentences of a class have come to lie closely
        together, as in a network that is trained to the end, they lie there (Papyan et al. 2020,
        "Prevalence of neural collapse", arXiv 2008.08186).
        """
        return F.normalize(self.fc2.weight, dim=1)


def make_head(tensors: Mapping[str, Tensor], name: str) -> TextHead:
    """Return an empty head of the size that a state dict has.

    Raises
    ------
    WeightsError
        If that is not the state dict of a head.
    """
    weights = [tensors.get(f"{layer}.weight") for layer in ("fc1", "fc2")]
    if any(weight is None or weight.ndim != 2 for weight in weights):
        raise WeightsError(
            f"The text head in {name} is damaged; it needs the matrices fc1.weight and fc2.weight."
        )
    first, second = (weight for weight in weights if weight is not None)
    return TextHead(first.shape[1], first.shape[0], second.shape[0])


def build_head(tensors: Mapping[str, Tensor], name: str) -> TextHead:
    """Build the head that a state dict belongs to, in evaluation mode.

    Raises
    ------
    WeightsError
        If tensors are missing or do not fit together.
    """
    return fill(lambda: make_head(tensors, name), tensors, name, "a text head of InstructIR")


class HeadAlone:
    """The file of a text head alone, which restores nothing; attributes as of `Tenant`.

    Parameters
    ----------
    network : TextHead
        In evaluation mode.
    """

    decides = keeps_level = False
    layers = 1
    arithmetic = None
    choices: tuple[Choice, ...] = ()
    multiple, halo = 1, 0
    flops_per_pixel = 0.0
    bare_bytes = 12.0  # of a pixel itself

    def __init__(self, network: TextHead) -> None:
        self.network = network

    def head(self, companion: Companion) -> TextHead:
        """Return the head."""
        return self.network

    def facts(self) -> dict[str, Any]:
        """Return the architecture as JSON-able values."""
        return {
            "features": self.network.fc1.in_features,
            "text": self.network.fc1.out_features,
            "classes": self.network.fc2.out_features,
        }

    def design(self) -> str:
        """Describe the architecture in a sentence."""
        return "The text head of an InstructIR network, without its image network."

    def backend_name(self, coarse: bool) -> str:
        """Return what runs it, in words."""
        return "torch"

    def bytes_per_pixel(self, coarse: bool) -> float:
        """Return the memory that a pixel takes."""
        return self.bare_bytes

    def half_error(self) -> float:
        """Nothing is run in half precision."""
        return 0.0

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        """Refuse to restore."""
        raise WeightsError(
            "These weights are the text head of an InstructIR network alone, which restores "
            "nothing; use its image network, such as im_instructir-7d.pt."
        )

    decide = route = survey = restore = restore_each = told = _refuse
