from hybridge.cloud.compiler.quantization.timing import interleaved, interleaved_ms


def test_works_take_turns() -> None:
    order: list[str] = []
    interleaved({name: lambda n=name: order.append(n) for name in "ab"}, rounds=3, warm_up=0)
    turns = [a for a, b in zip(order, [*order[1:], ""], strict=True) if a != b]
    assert "".join(turns).endswith("ababab")


def test_the_longer_work_takes_longer() -> None:
    times_ms = interleaved_ms(
        {"short": lambda: sum(range(100)), "long": lambda: sum(range(100_000))}, rounds=3
    )
    assert times_ms["long"] > times_ms["short"] > 0
