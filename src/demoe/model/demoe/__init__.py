"""The DeMoE network (arXiv 2508.06228). This file loads no torch; ``tenant`` does."""

from demoe.model.demoe.config import choices_of, is_demoe
from demoe.model.protocol import Architecture

DEMOE = Architecture(
    name="demoe",
    title="DeMoE (arXiv 2508.06228)",
    recognises=is_demoe,
    choices=choices_of,
    module="demoe.model.demoe.tenant",
)
