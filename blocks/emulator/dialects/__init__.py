"""One folder per provider: its routes and JSON shapes. Dialects share `wire`, `service` and `answers`, not each other.

To add one, name it here and give its folder a `dialect.py` with a class `Dialect`.
"""

DIALECTS = ("anthropic", "gemini", "holysheep", "mistral", "openai")
