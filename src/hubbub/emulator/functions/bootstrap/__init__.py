"""What runs in processes of its own: it imports nothing of Hubbub, and starts fast."""
