"""Hubbub: a scalable chat backend made of small stateless functions behind a WebSocket gateway."""
