"""The InstructIR network (arXiv 2401.16468). This file loads no torch; ``tenant`` does."""

from demoe.choices import DAMAGES, names_of
from demoe.model.instructir.config import choices_of, is_instructir
from demoe.model.protocol import Architecture

INSTRUCTIR = Architecture(
    name="instructir",
    title="InstructIR (arXiv 2401.16468)",
    recognises=is_instructir,
    choices=choices_of,
    module="demoe.model.instructir.tenant",
    takes_words=True,
    learns=names_of(DAMAGES),
)
