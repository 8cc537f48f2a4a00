"""Requests through the app's own client, which shows an answer now and a final one later."""

import uuid
from collections import Counter
from dataclasses import dataclass

from hybridge.client import Answer, Client
from hybridge.shared.errors import RemoteError
from hybridge.shared.security import Address


@dataclass(frozen=True, slots=True)
class Asked:
    """One request and what the client gave back: an answer or a fault."""

    request_id: str
    answer: Answer | None
    fault: str


class Followed:
    """One client, whose final answers are counted. `ask` may run in many threads."""

    def __init__(self, address: Address, model: str) -> None:
        self._client = Client(str(address))
        self._model = model

    def close(self) -> None:
        self._client.close()

    def ask(self, picture: bytes, budget_ms: float) -> Asked:
        request_id = uuid.uuid4().hex
        try:
            answer = self._client.infer(
                picture,
                budget_ms=budget_ms,
                model=self._model,
                request_id=request_id,
                follow=True,
            )
        except RemoteError as error:
            return Asked(request_id, None, str(error))
        return Asked(request_id, answer, "")

    def finals(self) -> dict[str, int]:
        """How many final answers were handed out since, by request, when all due have come.

        RemoteTooLate if one does not come.
        """
        return dict(Counter(final.request_id for final in self._client.finals.rest()))
