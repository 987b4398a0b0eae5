"""The only owner of services: publish(source, specs), take(model) -> lease; health checks."""
