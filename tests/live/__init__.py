"""Tests against live containers."""
