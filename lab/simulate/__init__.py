"""Simulate the methods and the engine without Docker, event by event, for large fleets."""
