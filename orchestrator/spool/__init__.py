"""The callers' side: job files come in, lights go out. Everything here keeps the contract of docs/protocol.md."""
