"""The processes that a fault run commands and kills."""
