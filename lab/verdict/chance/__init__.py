"""How far chance alone may take counts, and bounds of what a pick's probability was."""
