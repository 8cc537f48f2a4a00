"""The app's library: send a picture to an edge agent, get an answer by its deadline.

with Client("127.0.0.1:8600") as client:
    answer = client.infer(Path("cat.jpg").read_bytes(), budget_ms=100, follow=True)
    print(answer.label, answer.plan, answer.total_ms)  # now
    if answer.final_follows:  # the cloud was late
        print(client.finals.wait(answer).label)  # later
"""

from .answer import Answer
from .client import Client
from .finals import Finals
from .wish import Wish

__all__ = ["Answer", "Client", "Finals", "Wish"]
