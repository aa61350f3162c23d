"""QUEUE, ENGINES, EVENTS: one module a step, one function a transition. Only here is a database known."""
