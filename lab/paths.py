"""Where the project's own files lie: compose.yaml, nginx/, backends/."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
