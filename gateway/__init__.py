"""The HTTP program: an OpenAI-compatible front door. It never loads a model."""
