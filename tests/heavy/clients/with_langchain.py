"""What langchain's ChatOpenAI gets from a base URL, as JSON: for tests/live/test_clients.py."""

import json
import sys

from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

QUESTION = "How is the weather in Oslo?"


class Forecast(BaseModel):
    """A forecast for one city."""

    city: str
    days: list[int]
    note: str | None


@tool
def weather(city: str, days: int) -> str:
    """Return the weather of a city for some days."""
    return f"{city}: rain for {days} days"


def main() -> None:
    """Ask in each of langchain's ways."""
    shared = {"base_url": sys.argv[1], "model": "lab-llm", "api_key": "none", "max_retries": 0}
    model = ChatOpenAI(**shared, max_tokens=200, seed=1)
    methods = ("json_schema", "function_calling")
    structured = [
        model.with_structured_output(Forecast, method=method).invoke(QUESTION) for method in methods
    ]
    with_tools = model.bind_tools([weather])
    call = with_tools.invoke(QUESTION)
    result = ToolMessage(weather.invoke(call.tool_calls[0]["args"]), tool_call_id=call.id)
    result.tool_call_id = call.tool_calls[0]["id"]
    chunks = list(model.stream(QUESTION, stream_usage=True))
    complete = model.invoke(QUESTION)
    responses = ChatOpenAI(**shared, max_tokens=200, use_responses_api=True)
    vectors = OpenAIEmbeddings(**shared, check_embedding_ctx_length=False)
    answers = {
        "structured": [isinstance(answer, Forecast) for answer in structured],
        "tool": [made["name"] for made in call.tool_calls],
        "after the tool": with_tools.invoke([("user", QUESTION), call, result]).content,
        "whole": complete.content,
        "streamed": "".join(str(chunk.content) for chunk in chunks),
        "pieces": sum(bool(chunk.content) for chunk in chunks),
        "usage": [complete.usage_metadata, sum_usage(chunks)],
        "response": responses.invoke(QUESTION).text,
        "response streamed": "".join(chunk.text for chunk in responses.stream(QUESTION)),
        "response parsed": isinstance(
            responses.with_structured_output(Forecast).invoke(QUESTION), Forecast
        ),
        "vectors": [len(vector) for vector in vectors.embed_documents(["a", "b"])],
    }
    json.dump(answers, sys.stdout)


def sum_usage(chunks: list) -> object:
    """The usage of a stream, as langchain adds it up."""
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return total.usage_metadata


main()
