"""Step schedule: which job on which CPU."""
