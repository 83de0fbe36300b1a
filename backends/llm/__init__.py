"""A stand-in for an LLM server: the article's API, OpenAI's API, and a model of its timing."""
