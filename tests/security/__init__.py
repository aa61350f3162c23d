"""What users of a spool may do to each other, to us and to the host: as good as nothing. See docs/security.md."""
