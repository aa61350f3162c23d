"""`make demo` and `make up`: simulated engines, the orchestrator and its callers, as real processes."""
