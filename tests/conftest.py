"""Settings of all tests."""

from hypothesis import settings

# The same examples in every run: CI must not depend on luck. `--hypothesis-profile=default` looks for new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")
