"""The tokens that a simulated engine gives to those who log in."""

from __future__ import annotations

import secrets
import threading

from orchestrator.simulator.engine import Clock


class Tokens:
    """Tokens that end `life` seconds after their last use; None: never. May be called from any thread."""

    def __init__(self, life: float | None, clock: Clock) -> None:
        self._life = life
        self._clock = clock
        self._lock = threading.Lock()
        self._last_use: dict[str, float] = {}

    def issue(self) -> str:
        """A new token."""
        token = secrets.token_hex(16)
        with self._lock:
            self._last_use[token] = self._clock()
        return token

    def accept(self, token: str | None) -> bool:
        """Whether `token` is good now; if so this was a use of it."""
        with self._lock:
            last_use = self._last_use.get(token or "")
            if last_use is None or token is None:
                return False
            now = self._clock()
            if self._life is not None and now - last_use >= self._life:
                del self._last_use[token]
                return False
            self._last_use[token] = now
            return True

    def clear(self) -> None:
        """End all of them."""
        with self._lock:
            self._last_use.clear()
