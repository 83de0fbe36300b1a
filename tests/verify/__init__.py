"""Tests of the parts of lab verify; no Docker."""
