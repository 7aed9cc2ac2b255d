"""Anybody's WebSocket stack on this machine: templates, functions, the resources that they use, behind our gateway."""
