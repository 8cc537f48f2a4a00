"""What knows about hardware: the LiteRT runtime, and what machine this is."""
