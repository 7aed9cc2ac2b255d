"""Hubbub beside its peers: which there are, how each is installed and spoken to, and what is measured of them."""
