"""Start a backend as its environment says: `python3 -m llm`."""

import os
import sys

from .serve import main
from .settings import SettingsError, from_environment

try:
    main(from_environment(os.environ))
except SettingsError as error:
    sys.stderr.write(f"error: {error}\n")
    sys.exit(2)
