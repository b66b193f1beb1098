"""``python -m demoe.cli``."""

import sys

from demoe.cli import main

sys.exit(main())
