"""What `hybridge inspect` shows of a bundle: models, cuts, plans and times."""
