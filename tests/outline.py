"""A model that tests ask the OpenAI SDK to parse answers into."""

import pydantic


class Step(pydantic.BaseModel):
    """One step of a plan."""

    title: str
    minutes: int


class Outline(pydantic.BaseModel):
    """A schema with a nested model and a value that may be null."""

    name: str
    steps: list[Step]
    note: str | None
