"""``python -m edvac``: the same as ``edvac``."""

import sys

from edvac.cli.main import main

sys.exit(main())
