"""Looking an installation over, and changing nothing: `doctor` and `recover --dry-run`. One file a subject."""
