"""What stands in for a model: answers made of word lists and of the requested JSON Schema."""
