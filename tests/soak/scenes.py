"""What the conversations of the soak do, and what must hold of every answer that they get."""

from __future__ import annotations

import asyncio
import random
import re
import signal
from collections import Counter
from collections.abc import Awaitable, Callable

from tests.soak.caller import Answer, Caller

TOKEN = re.compile(r"tok_[0-9a-f]{16}")

TOLD = ("reset before this run", "variables lost", "context had been reset")
"""How a report says that variables are gone."""

KILLED_AT_BIRTH = (
    "The interpreter ended while it started: killed by signal 9",
    "The new context ended at once",
    "A context could not be made: it ended (-9) while it was made",
    "A context could not be made: it has ended",
)
"""Where a worker is killed before its context is there, also while it waits for one, the call is told so and leaves
nothing: it is made again."""

LONG_WAIT_S = 100
"""For runs that are not to yield, on a machine that may have other things to do."""

SHOWN_CHARS = 300
"""Of an answer, in what is said of a fault."""


class Mixup(AssertionError):
    """An answer holds what is another conversation's."""


class WrongAnswer(AssertionError):
    """An answer says what cannot be."""


class Conversation:
    """One conversation and all that it knows: its token, and whether its variables must still be there.

    `sure` means that a report told each loss of variables since they were set; after a call whose answer nobody read
    that cannot be known.
    """

    def __init__(self, caller: Caller, dice: random.Random, counts: Counter[str]) -> None:
        self.caller = caller
        self.token = f"tok_{dice.getrandbits(64):016x}"
        self._dice = dice
        self._counts = counts
        self._has_state = False
        self._sure = True
        self._extra = ""

    async def live(self, until: Callable[[], bool], pause_s: float) -> None:
        """Play scenes drawn by lot until it is time; then end the conversation."""
        await self.caller.open()
        scenes = [scene for scene, _ in SCENES]
        weights = [weight for _, weight in SCENES]
        while not until():
            [scene] = self._dice.choices(scenes, weights)
            await scene(self)
            await asyncio.sleep(self._dice.uniform(0, 2 * pause_s))
        await self.caller.end_conversation()
        await self.caller.close()

    # -- calls ------------------------------------------------------------------------------------------------------

    async def run(self, code: str, *expected: str, **arguments: object) -> Answer:
        """Run code behind a line that prints the token. `expected` are the statuses it may end in; ok where none."""
        arguments = {"wait": LONG_WAIT_S, **arguments}
        answer = await self.call("run_code", code=f"print('{self.token}')\n{code}", **arguments)
        self._expect(answer, *(expected or ("ok",)))
        return answer

    async def call(self, tool: str, **arguments: object) -> Answer:
        answer = await self.caller.call(tool, **arguments)
        while any(words in answer.content for words in KILLED_AT_BIRTH):
            self._counts["killed at birth"] += 1
            answer = await self.caller.call(tool, **arguments)
        for token in TOKEN.findall(answer.text):
            if token != self.token:
                raise Mixup(f"{self.caller.conversation} got {token}, which is another's: {answer.text[:SHOWN_CHARS]}")
        self._counts[answer.status if tool == "run_code" else tool] += 1
        if "context_id" not in arguments and any(words in answer.content for words in TOLD):
            self._has_state = False
        return answer

    def _expect(self, answer: Answer, *statuses: str) -> None:
        if answer.status == "crashed" and answer.record.get("signal") == signal.SIGKILL:  # by us, from outside
            return
        if answer.status not in statuses:
            raise WrongAnswer(f"{answer.status} where {' or '.join(statuses)} was due: {answer.content[:SHOWN_CHARS]}")
        complete = answer.status not in ("queued", "running") and not answer.record.get("continued")
        if complete and self.token not in answer.content:
            raise WrongAnswer(f"its token is missing: {answer.content[:SHOWN_CHARS]}")

    # -- scenes -----------------------------------------------------------------------------------------------------

    async def prints(self) -> None:
        await self.run(f"sum(range({self._dice.randrange(1000)}))")

    async def remembers(self) -> None:
        """What was set is there, or a report has said why not."""
        answer = await self.run("secret", "ok", "error")
        if answer.status == "error":
            if "NameError" not in answer.content:
                raise WrongAnswer(answer.content[:SHOWN_CHARS])
            if self._has_state and self._sure:
                raise WrongAnswer(f"variables are gone and nothing said so: {answer.content[:SHOWN_CHARS]}")
        if answer.status != "crashed":
            answer = await self.run(f"secret = '{self.token}'")
        self._has_state = answer.status == "ok"
        self._sure = True

    async def fails(self) -> None:
        answer = await self.run("1 / 0", "error")
        if answer.status == "error" and "ZeroDivisionError: division by zero" not in answer.content:
            raise WrongAnswer(answer.content[:SHOWN_CHARS])

    async def floods(self) -> None:
        """A lot of output: the report holds both ends, and says what is missing between them."""
        lines = self._dice.choice((2_000, 20_000, 60_000))
        answer = await self.run(f"for n in range({lines}): print(n, 'x' * 40)\nprint('{self.token}')")
        if answer.status == "ok" and (answer.content.count(self.token) != 2 or not answer.record["truncated"]):
            raise WrongAnswer(answer.content[:SHOWN_CHARS])

    async def yields(self) -> None:
        """A call returns while its code goes on, and the next ones bring the rest."""
        code = f"import time\nfor n in range(4): time.sleep(0.15); print(n, '{self.token}')"
        answer = await self.run(code, "running", "queued", "ok", wait=self._dice.uniform(0, 0.4))
        parts = answer.content
        while answer.status in ("running", "queued"):
            answer = await self.call("run_code", code="", wait=2)
            parts += answer.content
        if answer.status == "ok" and [parts.count(f"{n} {self.token}") for n in range(4)] != [1, 1, 1, 1]:
            raise WrongAnswer(f"not each line once: {parts[:SHOWN_CHARS]}")
        self._expect(answer, "ok")

    async def cancels(self) -> None:
        wait = self._dice.choice(("while True: pass", *3 * ("import time\ntime.sleep(600)",)))
        await self.caller.cancel(self.token, code=f"print('{self.token}')\n{wait}", timeout=20)
        self._counts["cancelled by us"] += 1
        self._sure = False
        await self.prints()

    async def hangs_up(self) -> None:
        """The older era goes on without its client, up to the time limit."""
        code = f"import time\nprint('{self.token}')\ntime.sleep(1)"
        await self.caller.hang_up(self._dice.uniform(0, 0.3), code=code, timeout=3)
        self._counts["hung up"] += 1
        self._sure = False
        answer = await self.run("'after it'")
        if answer.status == "ok" and "after it" not in answer.content:
            raise WrongAnswer(answer.content[:SHOWN_CHARS])

    async def times_out(self) -> None:
        await self.run("while True: pass", "timeout", timeout=0.2)

    async def dies(self) -> None:
        how = self._dice.choice(("os._exit(3)", "os.kill(os.getpid(), 11)", "os.abort()"))
        answer = await self.run(f"import os\n{how}", "crashed")
        if answer.record["state"] != "reset":
            raise WrongAnswer(answer.content[:SHOWN_CHARS])

    async def eats_memory(self) -> None:
        await self.run("held = bytearray(1 << 40)", "error")

    async def has_children(self) -> None:
        """Processes that nobody waits for: they end with the conversation at the latest."""
        await self.run("import subprocess\nchild = subprocess.Popen(['sleep', '1000'])\nchild.poll()")

    async def works_aside(self) -> None:
        """A context beside the default one, with runs in both at once."""
        if not self._extra:
            made = await self.call("create_context")
            self._extra = str(made.content.split('"context_id": "')[1].split('"')[0])
        await asyncio.gather(self.run("1 + 1"), self.run("import time; time.sleep(0.1)", context_id=self._extra))
        if self._dice.random() < 0.5:
            await self.call("delete_context", context_id=self._extra)
            self._extra = ""

    async def queues(self) -> None:
        """Several calls at once in one context: one after another, each with its own answer."""
        numbers = [self._dice.randrange(10**6) for _ in range(4)]
        answers = await asyncio.gather(*(self.run(f"'number {number}'") for number in numbers))
        for number, answer in zip(numbers, answers, strict=True):
            if answer.status == "ok" and f"number {number}" not in answer.content:
                raise WrongAnswer(f"the answer to another call: {answer.content[:SHOWN_CHARS]}")

    async def interrupts(self) -> None:
        answer = await self.run("import time\ntime.sleep(600)", "running", "queued", wait=0.3, timeout=300)
        while answer.status == "queued":
            answer = await self.call("run_code", code="", wait=0.3)
        if answer.status != "running":
            self._expect(answer)
            return
        await self.run("'instead'", interrupt=True)
        # What was stopped has a report that is still due.
        self._expect(await self.call("run_code", code=""), "interrupted")

    async def lists(self) -> None:
        answer = await self.call("list_contexts")
        if answer.content.count('"context_id"') != bool(self._extra):
            raise WrongAnswer(answer.content[:SHOWN_CHARS])

    async def begins_anew(self) -> None:
        await self.caller.end_conversation()
        self._counts["conversations ended"] += 1
        self._has_state, self._sure, self._extra = False, True, ""
        answer = await self.run("secret", "error")
        if answer.record["run"] != 1:
            raise WrongAnswer(answer.content[:SHOWN_CHARS])


Scene = Callable[[Conversation], Awaitable[None]]

SCENES: tuple[tuple[Scene, int], ...] = (
    (Conversation.prints, 10),
    (Conversation.remembers, 12),
    (Conversation.fails, 6),
    (Conversation.floods, 3),
    (Conversation.yields, 6),
    (Conversation.cancels, 6),
    (Conversation.hangs_up, 4),
    (Conversation.times_out, 3),
    (Conversation.dies, 2),
    (Conversation.eats_memory, 1),
    (Conversation.has_children, 2),
    (Conversation.works_aside, 6),
    (Conversation.queues, 4),
    (Conversation.interrupts, 3),
    (Conversation.lists, 2),
    (Conversation.begins_anew, 3),
)
