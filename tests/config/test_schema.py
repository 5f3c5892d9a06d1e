"""Every key of the schema says what it means."""

import pytest
from pydantic import BaseModel

from seernet.config import Params, schema

SECTIONS = [
    kind
    for kind in vars(schema).values()
    if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not schema.Section
]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_key_is_described(section):
    undescribed = [
        name
        for name, field in section.model_fields.items()
        if not field.description
        and not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))
    ]
    assert undescribed == []


def test_parameters_are_immutable(load_text, params_text):
    params: Params = load_text(params_text)
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 1
    with pytest.raises(ValueError, match="frozen"):
        params.sample.evaluation.steps = 1
