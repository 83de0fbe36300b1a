"""`python3 -m lab.setup`: the Makefile's way in, before anything is installed."""

import sys

from .steps import main

sys.exit(main())
