"""Steps start and check: what was placed is started on its engine, and watched until it has ended."""
