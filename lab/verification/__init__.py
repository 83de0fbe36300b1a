"""The parts of `lab verify`: a stage with the user's own nginx, stand-ins and a caller on it."""
