"""`doctor` and `recover`: each line really appears, and nothing is changed."""
