"""What is chosen: an image, a network and what it offers, a map, a brush, words. No Qt in here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from demoe.choices import BLURS, Choice, more, names_of
from demoe.errors import DemoeError
from demoe.recipe import Recipe
from napari_demoe._choices import PAINTED, Choices
from napari_demoe._compare import is_difference
from napari_demoe._layers import is_image, is_labels, is_result, is_shapes
from napari_demoe._maps import is_map
from napari_demoe._paint import name_regions

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Shapes

    from demoe.model.zoo import ModelInfo


class Chosen:
    """What a person chose for the next run.

    Parameters
    ----------
    viewer : ViewerModel
        Whose layers there are to choose from.
    changed : callable
        Called when something else is to be shown.
    stale : callable
        Called when the next run would take something else.

    Attributes
    ----------
    choices, scope, output, folder, experts, painted, brush, said, takes_words
        See `napari_demoe._session.Session`.
    """

    def __init__(
        self, viewer: ViewerModel, changed: Callable[[], None], stale: Callable[[], None]
    ) -> None:
        self.choices = Choices()
        self.scope = "all"
        self.output = self.folder = ""
        self.experts: tuple[Choice, ...] = BLURS
        self.painted: Labels | Shapes | None = None
        self.brush = 1
        self.said = ""
        self.takes_words = False
        self._source: Image | None = None
        self._viewer, self._changed, self._stale = viewer, changed, stale

    # -- layers -----------------------------------------------------------------------------

    @property
    def sources(self) -> list[Image]:
        """Every image layer but maps of ours, in the order of the layer list."""
        images = (layer for layer in self._viewer.layers if is_image(layer))
        fresh = (image for image in images if not is_difference(image))
        return [image for image in fresh if not is_map({"metadata": image.metadata})]

    @property
    def selected(self) -> list[Image]:
        """The selected ones of `sources`."""
        return [layer for layer in self.sources if layer in self._viewer.layers.selection]

    @property
    def maps(self) -> list[Labels | Shapes]:
        """Every layer of labels or shapes, in the order of the layer list."""
        return [each for each in self._viewer.layers if is_labels(each) or is_shapes(each)]

    @property
    def source(self) -> Image | None:
        """The image layer to deblur."""
        return self._source

    @source.setter
    def source(self, layer: Image | None) -> None:
        if layer is not self._source:
            self._source = layer
            self._stale()
            self._changed()

    @property
    def follows_map(self) -> bool:
        """Whether the expert map is taken from a layer."""
        return self.choices.routing == PAINTED

    def follow_selection(self) -> None:
        """Take the layer that was selected, if it may be meant."""
        active = self._viewer.layers.selection.active
        if active in self.sources and not is_result(active):
            self.source = active

    def follow_layers(self) -> None:
        """Choose others where layers are gone."""
        layers = self.sources
        if self._source not in layers:
            fresh = [layer for layer in layers if not is_result(layer)]
            self._source = (fresh or layers or [None])[-1]
            self._stale()
        maps = self.maps
        if self.painted not in maps:
            self.painted = maps[-1] if maps else None

    # -- settings, and the network ------------------------------------------------------------

    def choose(self, **values: Any) -> None:
        """Choose other fields of the recipe, or another ``scope``, ``output`` or ``folder``."""
        for name in ("scope", "output", "folder"):
            setattr(self, name, values.pop(name, getattr(self, name)))
        self.choices.update(values)
        self._stale()

    def choose_network(self, model: str) -> None:
        """Take another network, by name or path, and with it the experts that it offers."""
        from demoe.model.zoo import choices_of, takes_words

        if model != self.choices.model:
            self.choices.instructions = ()  # which were for the network before
        self.choices.model = model
        self._stale()
        self.takes_words = takes_words(model)
        found = choices_of(model)  # of PyTorch's own files, known once they are loaded
        if found is not None:
            self.offer(more(found, self.choices.instructions))
        self._changed()

    def offer(self, experts: tuple[Choice, ...]) -> None:
        """Let people choose from what a network offers."""
        if experts != self.experts:
            self.experts = experts
            self.brush = min(self.brush, len(experts))

    def missing_network(self) -> ModelInfo | None:
        """Return the chosen network if it would have to be downloaded first."""
        from demoe.model.zoo import list_models

        chosen = (model for model in list_models() if model.name == self.choices.model)
        return next((model for model in chosen if model.url and not model.available), None)

    def written(self, write: Callable[..., str]) -> str:
        """Return a text that does the same run; nothing without an image."""
        if self._source is None:
            return ""
        painted = self.painted if self.follows_map else None
        psf = self.choices.psf if isinstance(self.choices.psf, str) else ""
        return write(self.choices.recipe(), self._source, self.output, painted, psf)

    # -- words and brush ------------------------------------------------------------------------

    def understand(self, sentence: str) -> str | None:
        """Return the choice that a sentence names, or None; `said` tells what came of it.

        For a network that takes words, the sentence itself becomes a choice.
        """
        if self.takes_words:
            return self._instruct(sentence.strip())
        from demoe.routing.words.classifier import UNCLEAR, task_from_text

        task = None
        try:
            found = task_from_text(sentence)
        except DemoeError as error:
            self.said = str(error)
        else:
            sure = f"({found.confidence:.0%} sure)"
            known = dict(zip(names_of(self.experts), self.experts, strict=True))
            if found.task == UNCLEAR:
                self.said = f"Unclear {sure}: this names no kind of blur, so nothing was changed."
            elif found.task not in known:
                words = found.task.replace("_", " ")
                self.said = f"Understood: {words} {sure}; the chosen network has no expert for it."
            else:
                task = found.task
                self.said = f"Understood: {known[task].words} {sure}."
        self._changed()
        return task

    def _instruct(self, sentence: str) -> str | None:
        """Make a sentence a choice of the network, if it is none yet, and return its name."""
        choice = None
        if sentence in names_of(self.experts):
            choice, self.said = sentence, f"Follows: {sentence}."
        else:
            try:
                recipe = Recipe(instructions=(*self.choices.instructions, sentence))
            except DemoeError as error:
                self.said = str(error)
            else:
                self.choices.instructions = recipe.instructions
                self.offer(more(self.experts, (sentence,)))
                choice, self.said = sentence, f"Follows: {sentence}. It can be painted, too."
        self._changed()
        return choice

    def choose_brush(self, expert: int) -> None:
        """Paint with an expert, by its number, from now on."""
        before, self.brush = self.brush, expert
        if is_shapes(self.painted):
            name_regions(self.painted, expert, before, self.experts)
        elif self.painted is not None:
            self.painted.selected_label = expert
        self._changed()

    def follow_label(self, label: int) -> None:
        """Paint with the label that was selected on an expert map, if it stands for an expert."""
        if 1 <= label <= len(self.experts) and label != self.brush:
            self.brush = label
            self._changed()
