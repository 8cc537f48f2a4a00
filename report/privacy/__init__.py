"""What frames give away, as people read it."""
