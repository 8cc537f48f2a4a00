"""Work for a measuring process that ends it; here because that process imports this file alone."""


def die(job: object, tell: object) -> None:
    raise SystemExit(3)
