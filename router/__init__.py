"""One OpenAI-compatible endpoint in front of many vLLM servers."""

__version__ = "0.1.0"
