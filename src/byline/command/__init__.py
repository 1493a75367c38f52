"""The `byline` command: prepares artifacts, starts the programs, asks, shows. It loads no model."""
