"""Which subjects a node is subscribed to: those of its rooms and users one by one, or groups when they are very many.

Publishers name room and group alike, so each node chooses for itself. Interest that ends is kept for a while, so that
those who come back at once after a cut cost nothing.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from hubbub.clock import Clock
from hubbub.fanout.nats.link import Down, Link
from hubbub.fanout.nats.stats import NatsStats
from hubbub.fanout.nats.subjects import Subjects

KeyT = TypeVar("KeyT", bound=str)


class Kind(Generic[KeyT]):
    """The rooms, or the users, that a node wants to hear of.

    Attributes:
        single: above how many of them groups are subscribed to.
        is_grouped: whether they are.

    """

    def __init__(
        self,
        subject_of: Callable[[KeyT], str],
        single: int,
        covered: Callable[[list[KeyT]], None],
        ended: Callable[[KeyT], None],
    ) -> None:
        self.subject_of = subject_of
        self.single = single
        self.covered = covered
        self.ended = ended
        self.is_grouped = False
        self.subjects: dict[KeyT, str] = {}  # of those that are wanted, and of those that linger
        self.keys: dict[str, KeyT] = {}  # the other way round
        self.lingering: dict[KeyT, float] = {}  # not wanted any more, and until when they are kept (monotonic)
        self.groups: Counter[str] = Counter()  # how many there are of each group

    def needed(self, key: KeyT) -> str:
        """The subject that covers it."""
        subject = self.subjects[key]
        return Subjects.whole_group(subject) if self.is_grouped else subject


class Interest:
    """Subscribes and unsubscribes, many at once.

    Args:
        link: to NATS.
        clock: time.
        stats: counts.
        linger_s: how long interest is kept that ended.
        most_lingering: how much of it.
        answer_s: how long a server may take to confirm; in the machine's time.

    """

    def __init__(
        self,
        link: Link,
        *,
        clock: Clock,
        stats: NatsStats,
        linger_s: float = 10.0,
        most_lingering: int = 10_000,
        answer_s: float = 2.0,
    ) -> None:
        self._link = link
        self._clock = clock
        self._stats = stats
        self._linger_s = linger_s
        self._most_lingering = most_lingering
        self._answer_s = answer_s
        self._kinds: list[Kind[Any]] = []
        self._always: list[str] = []  # subjects that are subscribed to for good
        self._lives = 0  # how many connections there were: what was asked of one is nothing to the next
        self._adding: dict[str, None] = {}  # subjects to subscribe to
        self._removing: dict[str, None] = {}  # subscriptions to end
        self._made: dict[str, Any] = {}  # subscriptions of the present connection, as the link tells them apart
        self._unconfirmed: set[str] = set()  # those of them that the server may not know yet
        self._ends: list[tuple[float, int, Any, Kind[Any]]] = []  # a heap of (until, number, key, kind)
        self._number = 0
        self._work = asyncio.Event()
        self._turned: asyncio.Future[None] | None = None  # done when the present or next turn is
        self._changing = 0  # turns until subscriptions that cover the same are gone

    @property
    def is_changing(self) -> bool:
        """Whether two subscriptions may cover the same subject just now, so that a packet may come twice."""
        return self._changing > 0

    def kind(
        self,
        subject_of: Callable[[KeyT], str],
        *,
        single: int,
        covered: Callable[[list[KeyT]], None],
        ended: Callable[[KeyT], None],
    ) -> Kind[KeyT]:
        """A further kind of things to hear of.

        Args:
            subject_of: the subject of one.
            single: above how many groups are subscribed to.
            covered: told of those that are heard of from now on.
            ended: told of each that is heard of no more, after it lingered.

        """
        kind = Kind(subject_of, single, covered, ended)
        self._kinds.append(kind)
        return kind

    def always(self, subject: str) -> None:
        """Subscribe to a subject for good."""
        self._always.append(subject)
        self._add(subject)

    def want(self, kind: Kind[KeyT], key: KeyT) -> None:
        """Hear of it from soon on."""
        if kind.lingering.pop(key, None) is not None or key in kind.subjects:
            return
        subject = kind.subject_of(key)
        kind.subjects[key] = subject
        kind.keys[subject] = key
        group = Subjects.whole_group(subject)
        kind.groups[group] += 1
        needed = group if kind.is_grouped else subject
        self._add(needed)  # where it is live it may be of one that went just now, and about to end
        if self._is_live(needed):
            kind.covered([key])
        if not kind.is_grouped and len(kind.subjects) > kind.single:
            self._regroup(kind, grouped=True)

    def release(self, kind: Kind[KeyT], key: KeyT) -> None:
        """It need not be heard of any more."""
        if key not in kind.subjects or key in kind.lingering:
            return
        until = self._clock.monotonic() + self._linger_s
        kind.lingering[key] = until
        self._number += 1
        heapq.heappush(self._ends, (until, self._number, key, kind))
        while sum(len(each.lingering) for each in self._kinds) > self._most_lingering and self._ends:
            self._end_first()

    def sweep(self) -> None:
        """End what has lingered long enough."""
        now = self._clock.monotonic()
        while self._ends and self._ends[0][0] <= now:
            self._end_first()
        for kind in self._kinds:
            if kind.is_grouped and len(kind.subjects) < kind.single // 2:
                self._regroup(kind, grouped=False)

    def is_covered(self, kind: Kind[KeyT], key: KeyT) -> bool:
        """Whether it is heard of, by the server's word."""
        return key in kind.subjects and self._is_live(kind.needed(key))

    async def hears(self, subject: str, within_s: float) -> bool:
        """Wait until that subject is heard; False when that is not so within `within_s` seconds."""
        return await self._until(lambda: self._is_live(subject), within_s)

    async def covered(self, kind: Kind[KeyT], keys: Iterable[KeyT], within_s: float) -> bool:
        """Wait until all of them are heard of; False when that is not so within `within_s` seconds, or NATS is away."""
        wanted = list(keys)
        return await self._until(lambda: all(self.is_covered(kind, key) for key in wanted), within_s)

    async def _until(self, condition: Callable[[], bool], within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                while not condition():
                    if not self._link.is_up:
                        return False
                    if self._turned is None:
                        self._turned = asyncio.get_running_loop().create_future()
                    await asyncio.shield(self._turned)
        except TimeoutError:
            return False
        return True

    def connected(self) -> None:
        """There is a new connection: it has no subscription yet."""
        self._work.set()

    def lost(self) -> None:
        """The connection is gone, and its subscriptions."""
        self._made.clear()
        self._unconfirmed.clear()
        self._removing.clear()
        self._lives += 1
        self._changing = 0
        self._stats.subscriptions = 0
        self._adding.update(dict.fromkeys(self._always))
        for kind in self._kinds:
            needed = kind.groups if kind.is_grouped else kind.keys
            self._adding.update(dict.fromkeys(needed))
        self._done()

    async def run(self) -> None:
        """Subscribe and unsubscribe as is wanted, until cancelled."""
        self._work.set()  # what is begun anew may have been broken off
        while True:
            await self._work.wait()
            await asyncio.sleep(0)  # what this tick still wants goes along
            self._work.clear()
            try:
                while (self._adding or self._removing) and self._link.is_up:
                    await self._turn()
            except Down:
                if self._link.is_up:  # it does not answer: ask again what is not confirmed
                    self._work.set()
                    await asyncio.sleep(self._answer_s / 10)
            self._done()

    async def _turn(self) -> None:
        adding, removing, life = list(self._adding), list(self._removing), self._lives
        for subject in adding:  # any of them may be let go, or wanted again, while others are told of
            if subject in self._adding and subject not in self._made:
                made = await self._link.subscribe(subject)
                self._require(life)
                self._made[subject] = made
                self._unconfirmed.add(subject)
                if subject not in self._adding:
                    self._removing[subject] = None
        await self._link.flush(self._answer_s)
        self._require(life)
        added = [subject for subject in adding if self._adding.pop(subject, "gone") is None]
        self._unconfirmed.difference_update(adding)
        for kind in self._kinds:
            if keys := list(self._keys_of(kind, added)):
                kind.covered(keys)
        self._done()
        for subject in removing:  # what replaces them is confirmed
            if self._removing.pop(subject, "wanted") is None:
                self._unconfirmed.discard(subject)
                await self._link.unsubscribe(self._made.pop(subject))
                self._require(life)
        if self._changing:
            await self._link.flush(self._answer_s)
            self._require(life)
            if not self._removing:
                self._changing = 0
        self._stats.subscriptions = len(self._made)

    def _require(self, life: int) -> None:
        if life != self._lives:
            raise Down("the connection is gone")

    def _keys_of(self, kind: Kind[KeyT], subjects: list[str]) -> Iterable[KeyT]:
        """Those of a kind that these new subscriptions cover, if they were not covered before."""
        if not kind.is_grouped:
            return [
                kind.keys[subject]
                for subject in subjects
                if subject in kind.keys and not self._is_live(Subjects.whole_group(subject))
            ]
        groups = set(subjects) & kind.groups.keys()
        if not groups:
            return []
        return [
            key
            for key, subject in kind.subjects.items()
            if Subjects.whole_group(subject) in groups and not self._is_live(subject)
        ]

    def _regroup(self, kind: Kind[Any], *, grouped: bool) -> None:
        """Change from single subscriptions to groups or back; the old ones go when the new ones are confirmed."""
        old = list(kind.keys if grouped else kind.groups)
        kind.is_grouped = grouped
        for subject in old:
            self._adding.pop(subject, None)
            self._remove(subject)
        for subject in kind.groups if grouped else kind.keys:
            self._add(subject)
        self._changing += 1

    def _end_first(self) -> None:
        """Forget what has lingered longest, if it does still."""
        until, _, key, kind = heapq.heappop(self._ends)
        if kind.lingering.get(key) != until:
            return
        del kind.lingering[key]
        subject = kind.subjects.pop(key)
        del kind.keys[subject]
        group = Subjects.whole_group(subject)
        kind.groups[group] -= 1
        if not kind.groups[group]:
            del kind.groups[group]
            if kind.is_grouped:
                self._remove(group)
        if not kind.is_grouped:
            self._remove(subject)
        kind.ended(key)

    def _is_live(self, subject: str) -> bool:
        """Whether it is heard, by the server's word."""
        return subject in self._made and subject not in self._unconfirmed

    def _add(self, subject: str) -> None:
        self._removing.pop(subject, None)
        if self._is_live(subject):
            return
        self._adding[subject] = None
        self._work.set()

    def _remove(self, subject: str) -> None:
        self._adding.pop(subject, None)
        if subject in self._made:
            self._removing[subject] = None
            self._work.set()

    def _done(self) -> None:
        if self._turned is not None:
            turned, self._turned = self._turned, None
            if not turned.done():
                turned.set_result(None)
