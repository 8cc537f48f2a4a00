"""Which GPU holds which weights of a model that one GPU cannot hold: accelerate's device map."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from accelerate.utils import infer_auto_device_map
from torch import Tensor, nn

from .call import Call
from .operators import Operator
from .steps import Step
from .weights import GPU_SHARE


def free_bytes() -> dict[int, int]:
    """What each GPU has for weights now."""
    return {
        at: int(torch.cuda.mem_get_info(at)[0] * GPU_SHARE)
        for at in range(torch.cuda.device_count())
    }


def device_map(sizes: Mapping[str, int], free: Mapping[int, int]) -> dict[str, int]:
    """The GPU of each weight, in the order of a run; those that no GPU has room for have none.

    Accelerate keeps room on the first GPU for the largest of these, which come and go there.
    """
    layers = nn.ModuleDict(
        {
            str(at): nn.ParameterList(
                [nn.Parameter(torch.empty(size, dtype=torch.uint8, device="meta"), False)]
            )
            for at, size in enumerate(sizes.values())
        }
    )
    memory: dict[int | str, int | str] = dict(free.items())
    memory["cpu"] = 2 * sum(sizes.values())
    places = infer_auto_device_map(
        layers,
        max_memory=memory,
        no_split_module_classes=["ParameterList"],
        clean_result=False,
    )
    homes: dict[str, int] = {}
    for at, name in enumerate(sizes):
        place = places.get(str(at), places.get(f"{at}.0"))
        if isinstance(place, int):
            homes[name] = place
    return homes


def aligned(step: Step, homes: Mapping[str, torch.device]) -> Step:
    """A step that brings what it is given to its weights, or to the first thing it is given."""
    home = next((homes[name] for name in step.inputs if name and name in homes), None)

    def run(call: Call, *given: Tensor | None) -> Tensor | tuple[Tensor, ...]:
        there = home or next(tensor.device for tensor in given if tensor is not None)
        return step.operator.run(
            call, *(None if tensor is None else tensor.to(there) for tensor in given)
        )

    return replace(step, operator=Operator(run))
