"""What BENCHMARKS.md quotes: our times beside those of task-spooler and nq, measured in the same run."""
