"""The same methods and the same engine without Docker: event by event, at the scale of a fleet."""
