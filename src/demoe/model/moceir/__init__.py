"""The MoCE-IR network (arXiv 2411.18466). This file loads no torch; ``tenant`` does."""

from demoe.model.moceir.config import choices_of, is_moceir
from demoe.model.protocol import Architecture

MOCEIR = Architecture(
    name="moceir",
    title="MoCE-IR (arXiv 2411.18466)",
    recognises=is_moceir,
    choices=choices_of,
    module="demoe.model.moceir.tenant",
    learns=("noise", "rain", "haze", "low_light"),
)
