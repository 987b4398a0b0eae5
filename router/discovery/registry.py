"""What is known of labelled containers, and which services follow from it; it only decides.

An event that takes a container out counts by itself: when it `die`s, the engine may list it as
running for a while. What an inspection or a listing says of the life that ended so is older than
the event, and is passed over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from router.discovery.container import ContainerEvent, Fate
from router.discovery.labels import LabelProblem, Member, Rejected
from router.model import ServiceSpec

_MOST_NAME = 64
_GONE = "is no longer there"


@dataclass(frozen=True, slots=True)
class Came:
    """A container that is a service now.

    Attributes:
        spec: the service, under its own name.
        container: name of the container.
    """

    spec: ServiceSpec
    container: str


@dataclass(frozen=True, slots=True)
class Went:
    """A container that is none any more.

    Attributes:
        service: the name that it had.
        container: name of the container.
        why: reads on in "the container …".
    """

    service: str
    container: str
    why: str


@dataclass(frozen=True, slots=True)
class Change:
    """What became of the services.

    Attributes:
        came: new ones, and those that were started again.
        went: those that are gone, and those that were started again.
        altered: something else of a service is another.
    """

    came: tuple[Came, ...] = ()
    went: tuple[Went, ...] = ()
    altered: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed."""
        return not (self.came or self.went or self.altered)


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with the labels of a container.

    Attributes:
        id: of the container.
        container: its name.
        problems: one or more.
        is_out: it is no service for that.
    """

    id: str
    container: str
    problems: tuple[LabelProblem, ...]
    is_out: bool


@dataclass(frozen=True, slots=True)
class _End:
    """The end of a container's life, in nanoseconds of the engine's clock.

    Attributes:
        life: when that life had begun; None: the container was not known.
        at: when it ended.
    """

    life: int | None
    at: int

    def is_of(self, started_at: int) -> bool:
        """Whether it ended the life that began then; the clock may have been set back since."""
        return started_at <= self.at if self.life is None else started_at == self.life


class Registry:
    """Which containers are members, under which names.

    The first container of a name has it; another one gets its short identifier behind it. A
    container keeps its name for as long as it is a member.
    """

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._names: dict[str, str] = {}
        self._ended: dict[str, _End] = {}
        self._rejected: dict[str, Rejected] = {}

    def specs(self, taken: Collection[str] = ()) -> tuple[ServiceSpec, ...]:
        """The services, each under its own name; those that ask for a name of `taken` left out."""
        return tuple(
            replace(member.spec, name=self._names[id_])
            for id_, member in self._members.items()
            if member.spec.name not in taken
        )

    @property
    def problems(self) -> tuple[Complaint, ...]:
        """What is wrong with labels now."""
        left_out = [
            Complaint(id_, each.container.name, each.problems, is_out=True)
            for id_, each in self._rejected.items()
        ]
        remarked = [
            Complaint(id_, each.container.name, each.remarks, is_out=False)
            for id_, each in self._members.items()
            if each.remarks
        ]
        return (*left_out, *remarked)

    # -- what events and looks tell ------------------------------------------------------------

    def note(self, event: ContainerEvent) -> Change:
        """Take over an event that takes its container out."""
        member = self._members.get(event.id)
        if event.fate is Fate.REMOVED:
            self._ended.pop(event.id, None)
            self._rejected.pop(event.id, None)
        elif event.fate is Fate.DIED:
            if member is not None and member.container.started_at > event.at:
                return Change()  # of an earlier life
            life = None if member is None else member.container.started_at
            self._ended[event.id] = _End(life, event.at)
        if event.fate is Fate.CHANGED or member is None:
            return Change()
        return Change(went=(self._drop(event.id, event.fate),))

    def found(
        self,
        findings: Mapping[str, Member | Rejected | None],
        *,
        passed_over: Collection[str] = (),
        is_whole: bool = False,
    ) -> Change:
        """Take over what a look at containers found.

        Args:
            findings: by identifier.
            passed_over: identifiers of which something newer is known.
            is_whole: a container that is not among the findings is not there.
        """
        went: list[Went] = []
        came: list[Came] = []
        altered = False
        if is_whole:
            went += self._sweep(findings, passed_over)
        fresh = {id_: finding for id_, finding in findings.items() if id_ not in passed_over}
        for id_, finding in sorted(fresh.items(), key=_age):
            self._rejected.pop(id_, None)
            if isinstance(finding, Rejected):
                self._rejected[id_] = finding
            if not isinstance(finding, Member) or self._is_of_the_past(finding):
                if id_ in self._members:
                    went.append(self._drop(id_, _why(finding)))
                continue
            known = self._members.get(id_)
            if known is not None and _is_another_life(known, finding):
                went.append(self._drop(id_, "was started again"))
                known = None
            altered = altered or (known is not None and known.spec != finding.spec)
            self._members[id_] = finding
            name = self._name(id_, finding.spec.name)
            if known is None:
                came.append(Came(replace(finding.spec, name=name), finding.container.name))
        return Change(tuple(came), tuple(went), altered)

    def _sweep(self, findings: Collection[str], passed_over: Collection[str]) -> Iterable[Went]:
        there = {*findings, *passed_over}
        for table in (self._ended, self._rejected):
            for id_ in table.keys() - there:
                del table[id_]
        return [self._drop(id_, _GONE) for id_ in tuple(self._members) if id_ not in there]

    def _is_of_the_past(self, member: Member) -> bool:
        end = self._ended.get(member.container.id)
        return end is not None and end.is_of(member.container.started_at)

    def _drop(self, id_: str, why: str) -> Went:
        member = self._members.pop(id_)
        return Went(self._names.pop(id_), member.container.name, why)

    # -- names ---------------------------------------------------------------------------------

    def _name(self, id_: str, wanted: str) -> str:
        name = self._names.get(id_)
        if name is None or not _stems_from(name, wanted, id_):
            others = {name for other, name in self._names.items() if other != id_}
            name = self._names[id_] = wanted if wanted not in others else _apart(wanted, id_)
        return name


def _age(item: tuple[str, Member | Rejected | None]) -> tuple[str, str]:
    id_, finding = item
    return (finding.container.created if finding is not None else "", id_)


def _why(finding: Member | Rejected | None) -> str:
    if isinstance(finding, Rejected):
        return f"can no longer be a service ({finding.problems[0]})"
    return "is no longer up"


def _is_another_life(known: Member, found: Member) -> bool:
    return known.container.started_at != found.container.started_at


def _apart(name: str, id_: str) -> str:
    short = id_[:12]
    return f"{name[: _MOST_NAME - 1 - len(short)]}-{short}"


def _stems_from(name: str, wanted: str, id_: str) -> bool:
    return name in {wanted, _apart(wanted, id_)}
