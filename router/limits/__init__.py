"""Limits by client address."""
