"""Small durable rows beside the journal: a run's inbox, the permissions people gave, schedules."""

from __future__ import annotations

from collections.abc import Sequence

from edvac.core.errors import InternalError
from edvac.core.seams import durability_point
from edvac.store.inbox import take_message
from edvac.store.model import MESSAGE_KINDS, Grant, Message, MessageKind, Schedule
from edvac.store.part import Part, lock_run
from edvac.store.schema import Execute
from edvac.store.seal import reseal, sealed, sound

_WAITING = sealed(
    "SELECT id, kind, payload, posted, SOUND FROM inbox"
    " WHERE number = ? AND id > ? AND taken = 0 ORDER BY id",
    "inbox",
)
_PERMISSIONS = sealed(
    "SELECT id, shape, scope, expires, created, SOUND FROM permission ORDER BY created, id",
    "permission",
)
_SCHEDULES = sealed(
    "SELECT id, spec, created, fired, run, said, SOUND FROM schedule ORDER BY created, id",
    "schedule",
)


class NotePart(Part):
    def post(self, run: str, kind: MessageKind, payload: bytes = b"") -> int:
        """Put a message into a run's inbox; its number. Needs no lease."""
        return self.post_all(run, kind, [payload])[0]

    def post_all(self, run: str, kind: MessageKind, payloads: Sequence[bytes]) -> list[int]:
        """Several messages of one kind, all of them or none."""
        if kind not in MESSAGE_KINDS:
            raise InternalError("message_kind_unknown", f"{kind!r} is no kind of message")
        number = self._number(run)
        with self._db.write("posting a message") as execute:
            # One at a time: a reader that goes on after the latest number must miss none.
            lock_run(execute, run, number)
            found = [self._post(execute, number, kind, payload) for payload in payloads]
            durability_point("store.post.before_commit")
        durability_point("store.post.after_commit")
        return found

    def _post(self, execute: Execute, number: int, kind: MessageKind, payload: bytes) -> int:
        found: int = execute(
            "INSERT INTO inbox (number, kind, payload, posted) VALUES (?,?,?,?) RETURNING id",
            (number, kind, payload, self._clock.wall()),
        ).fetchall()[0][0]
        reseal(execute, "inbox", "id = ?", (found,))
        return found

    def inbox(self, run: str, after: int = 0) -> list[Message]:
        """Messages that nobody has taken, in the order of posting."""
        rows = sound("inbox", self._db.rows(_WAITING, (self._number(run), after)))
        return [Message(id_, run, kind, data, posted) for id_, kind, data, posted in rows]

    def ack(self, run: str, message: int) -> bool:
        """Take a message; False if it was taken already. Exactly one caller gets True."""
        number = self._number(run)
        with self._db.write("taking a message") as execute:
            return take_message(execute, number, message)

    def grant(self, given: Grant) -> None:
        """Keep a permission; the same id replaces."""
        with self._db.write("storing a permission") as execute:
            execute(
                "INSERT INTO permission (id, shape, scope, expires, created) VALUES (?,?,?,?,?)"
                " ON CONFLICT (id) DO UPDATE SET shape = excluded.shape, scope = excluded.scope,"
                " expires = excluded.expires, created = excluded.created",
                (given.id, given.shape, given.scope, given.expires, given.created),
            )
            reseal(execute, "permission", "id = ?", (given.id,))

    def grants(self, now_wall: float | None = None) -> list[Grant]:
        """All permissions, oldest first; with a time, those that are still in force."""
        found = [Grant(*row) for row in sound("permission", self._db.rows(_PERMISSIONS))]
        return [
            grant
            for grant in found
            if now_wall is None or grant.expires is None or grant.expires > now_wall
        ]

    def revoke(self, grant: str) -> bool:
        """Remove a permission; whether it was there."""
        with self._db.write("revoking a permission") as execute:
            rows = execute("DELETE FROM permission WHERE id = ? RETURNING id", (grant,)).fetchall()
        return bool(rows)

    def keep_schedule(self, schedule: Schedule) -> None:
        """Keep a schedule; the same id replaces."""
        row = (schedule.id, schedule.spec, schedule.created)
        with self._db.write("storing a schedule") as execute:
            execute(
                "INSERT INTO schedule (id, spec, created, fired, run, said) VALUES (?,?,?,?,?,?)"
                " ON CONFLICT (id) DO UPDATE SET spec = excluded.spec, created = excluded.created,"
                " fired = excluded.fired, run = excluded.run, said = excluded.said",
                (*row, schedule.fired, schedule.run, schedule.said),
            )
            reseal(execute, "schedule", "id = ?", (schedule.id,))

    def schedules(self) -> list[Schedule]:
        """All of them, oldest first."""
        return [Schedule(*row) for row in sound("schedule", self._db.rows(_SCHEDULES))]

    def drop_schedule(self, schedule: str) -> bool:
        """Remove a schedule; whether it was there."""
        with self._db.write("removing a schedule") as execute:
            rows = execute("DELETE FROM schedule WHERE id = ? RETURNING id", (schedule,)).fetchall()
        return bool(rows)
