"""What instructor gets from a base URL, as JSON: for tests/live/test_clients.py."""

import json
import sys

import instructor
import openai
from pydantic import BaseModel

MESSAGES = [{"role": "user", "content": "Plan my day."}]


class Step(BaseModel):
    """One step of a plan."""

    title: str
    minutes: int


class Plan(BaseModel):
    """A plan with nested models."""

    name: str
    steps: list[Step]


def main() -> None:
    """Ask in each of instructor's modes."""
    answers = {}
    with openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0) as client:
        for mode in ("TOOLS", "JSON_SCHEMA", "RESPONSES_TOOLS"):
            wrapped = instructor.from_openai(client, mode=instructor.Mode[mode])
            options = {"model": "lab-llm", "response_model": Plan, "messages": MESSAGES}
            answer = wrapped.create(**options, max_retries=0)
            answers[mode] = isinstance(answer, Plan)
        partial = instructor.from_openai(client).create_partial(**options, max_retries=0)
        answers["partial"] = [piece.model_dump() for piece in partial]
    json.dump(answers, sys.stdout)


main()
