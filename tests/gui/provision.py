"""Make sure that a Qt window can be shown here: Xvfb and the libraries that Qt and OpenGL load.

Installs what is missing where it can (root, apt-get); otherwise stops with the line to run.
"""

import ctypes
import os
import shutil
import subprocess
import sys

# What Qt's xcb platform and Mesa's software OpenGL load -> the Debian and Ubuntu package.
LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libGLX_mesa.so.0": "libglx-mesa0",
    "libOpenGL.so.0": "libopengl0",
    "libdbus-1.so.3": "libdbus-1-3",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-xfixes.so.0": "libxcb-xfixes0",
    "libxcb-xinerama.so.0": "libxcb-xinerama0",
    "libxcb-xinput.so.0": "libxcb-xinput0",
}
PROGRAMS = {"Xvfb": "xvfb", "xvfb-run": "xvfb", "xauth": "xauth"}


def missing() -> list[str]:
    """Debian packages of which a library or program is not here, sorted."""
    packages = {package for program, package in PROGRAMS.items() if not shutil.which(program)}
    for library, package in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            packages.add(package)
    return sorted(packages)


def main() -> int:
    """Return 0 when everything is here, 1 when something is missing still."""
    wanted = missing()
    if wanted and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing for the window tests:", *wanted, flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (["update", "-qq"], ["install", "-y", "-qq", *wanted]):
            subprocess.run(["apt-get", *arguments], env=environment, check=False)
        wanted = missing()
    if wanted:
        print(
            "The window tests need packages that are not installed; run:\n\n"
            f"    sudo apt-get update && sudo apt-get install -y {' '.join(wanted)}\n",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
