"""What the widget calls its choices, and says of its parts."""

from __future__ import annotations

from napari_demoe._wanted import PREVIEW_SIDE

FROM_FILE = "file"
MODEL_WORDS = {
    "default": "Bundled network",
    "instructir-small": "Bundled InstructIR network",
    "moceir-small": "Bundled MoCE-IR network",
    "mimdit-small": "Bundled MiM-DiT-like network",
    "demoe": "Released DeMoE network",
    "instructir": "Released InstructIR network",
}
DECISIONS = {
    "auto": "Automatic",
    "local": "Decide place by place",
    "image": "One decision for the image",
}
"""What the network decides by itself; its own choices follow, and then the painted map."""

SHOWN = ("overlay", "confidence", "blur", "kernels", "consistency", "complexity")
"""Maps of a result that can be shown: names of check boxes here, and of layers in the session."""

SCOPE_WORDS = {
    "all": "Everything, view first",
    "view": "Only the view",
    "region": "What shapes frame",
}
"""What a run takes; see `napari_demoe._choices.SCOPES`."""

PAINTED_WORDS = "As painted or drawn in a layer"
DEVICES = {"auto": "Automatic", "cpu": "Processor"}

TOOLTIPS = {
    "image": "The image layer to deblur. Stacks, time series, channels, colour and multiscale\n"
    "layers are all fine; every plane is deblurred on its own.",
    "painted": "The map of a result, or any layer of labels (1, 2 ... in the order of the list\n"
    "below; 0 leaves the choice to the network) or of shapes (their feature 'task', or the\n"
    "expert that is chosen below). It counts where it lies on the image.",
    "sentence": "Say in English what went wrong, for example 'my sample moved', and press Enter:\n"
    "it chooses the kind of blur.",
    "correct": "Deblur again where the map was corrected, with the settings of that run.\n"
    "Only the tiles that change are computed.",
    "confidence": "By how much the best expert leads, from black (a toss-up, or nothing to\n"
    "decide) to white (sure, or painted by you).",
    "blur": "The blur that was found in each place, drawn four times as large as it is.",
    "kernels": "A picture of the blur in each place, seven times as large as it is: what a point\n"
    "looks like there.",
    "consistency": "The result blurred again, against the data: nothing up to the noise, red\n"
    "where the data do not support what is seen.",
    "complexity": "How much the experts of a place compute, from dark (cheap) to bright (the\n"
    "costliest), for networks whose experts cost differently.",
    "scope": "What is looked at is deblurred first, from the middle outwards, and goes on as you\n"
    "pan, zoom and move the sliders. Shapes: their bounding boxes, in the layer chosen as map.",
    "resume": "Go on with the run that was stopped; what is done is not computed again.",
    "run": "Deblur the image: its tiles appear as they are done.",
    "preview": f"Deblur up to {PREVIEW_SIDE} by {PREVIEW_SIDE} pixels around the middle of the\n"
    "view, in the plane that is shown, to try the settings.",
    "cancel": "Stop; what is done stays.",
    "batch": "Deblur a folder of images, or the selected layers, into another folder.",
    "script": "Copy Python lines that do this run without the viewer.",
    "command": "Copy a command line that does this run without the viewer.",
    "keep": "An output, such as result.ome.zarr: tiles are kept beside it and outlive the viewer.\n"
    "The same image with the same settings goes on with them; so does demoe run --resume,\n"
    "which writes that output.",
    "elsewhere": "Choose where tiles are kept while their layer lives.",
}
