"""In which numbers nets are trained: bfloat16 where the machine multiplies in it."""

from functools import cache

import torch


@cache
def fast_in_bfloat16(kind: str) -> bool:
    """CUDA is; of processors those that have instructions for it."""
    if kind == "cuda":
        return True
    there = torch.cpu.get_capabilities()
    return bool(there.get("avx512_bf16") or there.get("amx_bf16") or there.get("bf16"))


def mixed(device: torch.device) -> torch.autocast:
    """The context in which convolutions and products are computed so."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast_in_bfloat16(device.type))
