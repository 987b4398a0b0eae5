"""The OpenAI protocol and nothing else: paths, request bodies, error envelopes, event streams."""
