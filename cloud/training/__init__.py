"""Small models trained from the answers of large ones."""
