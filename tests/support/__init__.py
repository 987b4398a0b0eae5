"""What tests stand on: a scripted engine, the daemon as a process, a raw HTTP client."""
