"""Properties are given the time that a busy machine needs."""

from hypothesis import settings

settings.register_profile("batchwerk", deadline=None)
settings.load_profile("batchwerk")
