"""Measures what the router costs, beside nginx and beside a direct connection."""
