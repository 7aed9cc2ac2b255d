"""A function that these tests look for and do not run."""
