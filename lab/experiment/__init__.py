"""Combine the modules that act with those that compute: fleet, traffic, evidence, verdict."""
