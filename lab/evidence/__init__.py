"""What was seen: logs, journals, the run folder, the split."""
