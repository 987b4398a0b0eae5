"""Keys and organizations: who asks."""
