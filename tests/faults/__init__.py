"""What breaks, at every point where it can: kills, failing system calls, loss of power, engines gone wrong."""
