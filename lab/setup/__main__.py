"""`python3 -m lab.setup`: called by the Makefile before anything is installed."""

import sys

from .steps import main

sys.exit(main())
