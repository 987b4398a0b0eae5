"""The data plane: a request's way from the client's socket to an engine and back."""
