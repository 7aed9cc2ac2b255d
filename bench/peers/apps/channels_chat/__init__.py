"""A chat of one consumer on Django Channels, as its tutorial has it; the layer and Redis come from the environment."""
