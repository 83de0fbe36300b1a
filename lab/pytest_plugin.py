"""A `lab` fixture for acceptance tests."""
