"""orchestrator: files come in, rows wait, slots run, lights go out."""

__version__ = "0.1.0"
