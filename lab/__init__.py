"""nginx-llm-lab: predict what nginx does with LLM traffic, then prove it."""

__version__ = "0.1.0"
