"""A network after the idea of MiM-DiT (arXiv 2603.02710). It loads no torch; ``tenant`` does."""

from demoe.model.mimdit.config import choices_of, is_mimdit
from demoe.model.protocol import Architecture

MIMDIT = Architecture(
    name="mimdit",
    title="MiM-DiT-like (after the idea of arXiv 2603.02710)",
    recognises=is_mimdit,
    choices=choices_of,
    module="demoe.model.mimdit.tenant",
    learns=("rain", "haze", "low_light"),
)
