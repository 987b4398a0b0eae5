"""Status pages, metrics and models: what is not inference."""
