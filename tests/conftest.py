"""hypothesis without deadlines, because a slow machine is no error."""

from hypothesis import settings

settings.register_profile("machine of any speed", deadline=None)
settings.load_profile("machine of any speed")
