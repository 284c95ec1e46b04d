"""The blocks: their types are derived from the catalog."""

import pytest
from prefect.blocks.core import Block
from prefect.utilities.dispatch import lookup_type
from pydantic import ValidationError

from blocks import credentials
from blocks.catalog import PROVIDERS


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_has_a_type_of_block(provider: str) -> None:
    """Its slug, its address and its options are those of the entry; a wrong choice is refused."""
    entry = PROVIDERS[provider]
    kind = credentials.block_type(provider)
    assert kind is getattr(credentials, f"{entry.title}Credentials")
    assert kind.get_block_type_slug() == f"{provider}-credentials"
    assert lookup_type(Block, f"{provider}-credentials") is kind  # how Prefect finds the class of a saved block
    assert "base URL" in str(kind.get_description())
    assert kind.__doc__
    choices = {option.name: option.usual for option in entry.options if option.choices}
    block = kind.model_validate({"api_key": "sk-a-key-of-the-tests"})
    assert (block.base_url, block.options()) == (entry.base_url, choices)
    for name in choices:
        with pytest.raises(ValidationError):
            kind.model_validate({"api_key": "sk-a-key-of-the-tests", name: "odd"})
