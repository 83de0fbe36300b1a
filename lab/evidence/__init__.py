"""The evidence of a run: logs, journals, the run folder, the split."""
