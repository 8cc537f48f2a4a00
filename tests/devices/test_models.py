from ..bundles import Small, picture, SPLIT, CLOUD
import numpy as np


def test_x(small: Small):
    for s in range(8):
        p = picture(s)
        print(small.light(p).round(2), small.large(p).round(2), small.large(p, SPLIT).round(2))
    print([r.plan for r in small.bundle.manifest.table])
