"""hypothesis without deadlines: a slow machine is no fault."""

from hypothesis import settings

settings.register_profile("oracle", deadline=None)
settings.load_profile("oracle")
