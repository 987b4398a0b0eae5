"""The dashboard: one page, live. It reads what the owners tell and changes nothing."""
