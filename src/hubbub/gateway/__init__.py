"""The WebSocket gateway: it moves frames, speaks API Gateway's contract and knows nothing of chat."""
