"""Settings of all tests."""

import os

from hypothesis import settings

# Once a test has imported Prefect, its handler would complain about each line that is logged outside of a flow.
os.environ["PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW"] = "ignore"

# The same examples in every run: CI must not depend on luck. `--hypothesis-profile=default` looks for new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")
