"""Who waits for which final answer, and which have come. Pure: no threads, no connection.

An edge delivers at least once; out of a mailbox each final answer comes once, whatever is sent
twice, and to every request that was told to expect one there comes one: if the edge was restarted,
the provisional answer again, with the reason.
"""

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, replace

from .answer import Answer

MOST_WAITING = 1_024
"""Answers that nobody has fetched, and requests without one: the oldest go first."""
_MOST_SEEN = 8_192
_MOST_EPOCHS = 64
"""Restarts of the edge that are remembered: far more than there are while an answer is awaited."""
RESTARTED = "no final answer: the edge was restarted"
UNREADABLE = "no final answer: it cannot be read"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request under way; `answer` is the provisional one once it is there.

    `streams`: how many streams had been begun by then.
    """

    sent_s: float
    answer: Answer | None = None
    streams: int = 0


class Mailbox:
    """The state of one client's final answers."""

    def __init__(self, *, most_waiting: int = MOST_WAITING, most_seen: int = _MOST_SEEN) -> None:
        self.epoch = ""
        self.sequence = 0
        """Where reading goes on after a broken connection."""
        self.dropped = 0
        """Final answers that came and were never fetched, and are gone."""
        self._most_waiting = most_waiting
        self._most_seen = most_seen
        self._asked: OrderedDict[str, _Asked] = OrderedDict()
        self._here: OrderedDict[str, Answer] = OrderedDict()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._past_epochs: deque[str] = deque(maxlen=_MOST_EPOCHS)
        self._streams = 0
        self._claims: Counter[str] = Counter()

    @property
    def has_next(self) -> bool:
        """Whether one is here that nobody waits for by name."""
        return self._next() is not None

    @property
    def longest_ms(self) -> float:
        """How long after its deadline the edge may take for any of those to come."""
        answers = [asked.answer for asked in self._asked.values() if asked.answer is not None]
        return max((answer.follow_ms for answer in answers), default=0.0)

    @property
    def doubtful(self) -> bool:
        """Whether something was promised in a log that may be older than this stream's, or newer.

        Another stream will tell.
        """
        answers = [asked.answer for asked in self._asked.values() if asked.answer is not None]
        return bool(self.epoch) and any(each.results_epoch != self.epoch for each in answers)

    @property
    def outstanding(self) -> int:
        """How many requests have been told that a final answer will come."""
        return sum(asked.answer is not None for asked in self._asked.values())

    def ask(self, request_id: str, *, now_s: float) -> None:
        """A request that is to be followed is about to be sent.

        Of too many the oldest are no longer waited for; what comes for them is handed out still.
        """
        if request_id in self._seen:
            return  # the same request again: its final answer has come
        self._asked[request_id] = _Asked(now_s)
        while len(self._asked) > self._most_waiting:
            self._asked.popitem(last=False)

    def withdraw(self, request_id: str) -> None:
        """The request failed; should a final answer come all the same, it is handed out."""
        self._asked.pop(request_id, None)

    def answered(self, answer: Answer) -> None:
        """The request's first answer is there, and says whether another will follow."""
        asked = self._asked.get(answer.request_id)
        if asked is None:
            return  # the final one was quicker
        if not answer.final_follows:
            del self._asked[answer.request_id]
            return
        self._asked[answer.request_id] = replace(asked, answer=answer, streams=self._streams)
        if answer.results_epoch in self._past_epochs:
            self._lose(answer, RESTARTED)

    def opening(self) -> None:
        """Another stream is about to be begun."""
        self._streams += 1

    def opened(self, epoch: str) -> None:
        """The edge says which log the stream reads from.

        It is that of the edge which answered last before the stream was begun, or of a later one:
        what was promised before then in another log is lost.
        """
        if epoch != self.epoch:
            if self.epoch:
                self._past_epochs.append(self.epoch)
            self.epoch, self.sequence = epoch, 0
        for asked in list(self._asked.values()):
            if asked.answer is None or asked.answer.results_epoch == epoch:
                continue
            if asked.streams < self._streams or asked.answer.results_epoch in self._past_epochs:
                self._lose(asked.answer, RESTARTED)

    def deliver(self, final: Answer, *, now_s: float) -> None:
        """A final answer has come, maybe not for the first time."""
        if final.request_id in self._seen:
            return
        asked = self._asked.get(final.request_id)
        if asked is not None:
            final = replace(final, round_trip_ms=(now_s - asked.sent_s) * 1e3)
        self._keep(final)

    def lose(self, request_id: str, fallback: str) -> None:
        """It came, and is of no use: the provisional answer stands."""
        asked = self._asked.get(request_id)
        if asked is not None and asked.answer is not None:
            self._lose(asked.answer, fallback)

    def claim(self, request_id: str) -> None:
        """Somebody waits for this one: it is for nobody else."""
        self._claims[request_id] += 1

    def release(self, request_id: str) -> None:
        """Nobody waits for it by name any more, or one less."""
        self._claims[request_id] -= 1
        if not self._claims[request_id]:
            del self._claims[request_id]

    def expects(self, request_id: str) -> bool:
        """Whether it may still come."""
        return request_id in self._asked

    def holds(self, request_id: str) -> bool:
        """Whether it is here."""
        return request_id in self._here

    def take(self, request_id: str) -> Answer | None:
        """The final answer to one request, if it is here."""
        return self._here.pop(request_id, None)

    def take_next(self) -> Answer | None:
        """The oldest that nobody waits for by name."""
        request_id = self._next()
        return self._here.pop(request_id) if request_id is not None else None

    def _keep(self, final: Answer) -> None:
        self._asked.pop(final.request_id, None)
        self._seen[final.request_id] = None
        self._here[final.request_id] = final
        while len(self._seen) > self._most_seen:
            self._seen.popitem(last=False)
        while len(self._here) > self._most_waiting:
            self._here.popitem(last=False)
            self.dropped += 1

    def _next(self) -> str | None:
        return next((each for each in self._here if each not in self._claims), None)

    def _lose(self, answer: Answer, fallback: str) -> None:
        self._keep(replace(answer, final=True, fallback=fallback, results_epoch=""))
