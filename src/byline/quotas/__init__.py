"""Limits of API keys, applications and organisations, and what each of them has used."""
