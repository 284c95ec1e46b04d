"""A stand-in for a model: answers made from word lists and the requested JSON Schema."""
