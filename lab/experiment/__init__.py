"""Where acting and computing meet: a fleet, its traffic, its evidence, its verdict."""
