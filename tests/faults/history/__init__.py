"""What clients of a cluster asked, were told and saw while it was broken, and the check that all of it was right."""
