"""Replay the traffic of a log through each method."""
