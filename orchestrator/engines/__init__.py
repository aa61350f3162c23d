"""Engines: what runs jobs. One interface (base.py), one module or folder a kind, found by entry point."""
