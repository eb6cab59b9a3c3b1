"""What a user protects: groups by name, and the alignment of what stays."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxtrim.bench.errors import InputError
from onnxtrim.bench.machine import fingerprint
from onnxtrim.toolkit.graph.constraints import satisfy
from onnxtrim.toolkit.graph.groups import Analysis, Group
from onnxtrim.toolkit.graph.labels import Index
from onnxtrim.toolkit.graph.surgery import Keep


@dataclass(frozen=True)
class Limits:
    """Which groups may lose units, and how many must stay.

    Attributes:
        include: Globs; only groups with a matching name are pruned. All groups if empty.
        exclude: Globs; groups with a matching name stay whole.
        align: Every axis of a weight keeps a multiple of this many positions, or all.
        only_convolutions: Only axes of the weights of convolutions are aligned.
        min_units: At least so many units of every group stay.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    align: int = 1
    only_convolutions: bool = False
    min_units: int = 1

    def __post_init__(self) -> None:
        if self.align < 1:
            raise InputError(f"--align {self.align}: must be 1 or more")
        if self.min_units < 1:
            raise InputError(f"--min-units {self.min_units}: must be 1 or more")

    @classmethod
    def make(
        cls,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        align: int | str = 1,
        min_units: int = 1,
    ) -> Limits:
        """From what a user gives, ``"auto"`` as alignment among it.

        Raises:
            InputError: A number is out of range, or the alignment is another word.
        """
        if align == "auto":
            return cls(tuple(include), tuple(exclude), fast_multiple(), True, min_units)
        try:
            number = int(align)
        except ValueError as error:
            raise InputError(f"--align {align!r}: give a number or auto") from error
        return cls(tuple(include), tuple(exclude), number, min_units=min_units)

    def check(self, analysis: Analysis) -> None:
        """Refuse a glob that matches nothing: it is a typing error more often than a wish.

        Raises:
            InputError: Naming the glob.
        """
        names = {name for group in analysis.all_groups() for name in group_names(analysis, group)}
        for option, globs in (("--include", self.include), ("--exclude", self.exclude)):
            for glob in globs:
                if not fnmatch.filter(names, glob):
                    raise InputError(
                        f"{option} {glob!r}: matches no group, and no node or parameter that"
                        " produces one; 'onnxtrim inspect' lists them"
                    )

    def allows(self, analysis: Analysis, group: Group) -> bool:
        """Whether a group may lose units."""
        names = group_names(analysis, group)

        def matches(globs: tuple[str, ...]) -> bool:
            return any(fnmatch.filter(names, glob) for glob in globs)

        return (not self.include or matches(self.include)) and not matches(self.exclude)

    def keep(self, analysis: Analysis, removals: Mapping[str, Index]) -> Keep:
        """The masks of what stays; units that the axes can't spare come back, the best first."""
        most = {group.name: max(group.units - self.min_units, 0) for group in analysis.groups}
        spared = {name: units[: most[name]] for name, units in removals.items() if name in most}
        return satisfy(analysis, spared, self.align, only_convolutions=self.only_convolutions)

    def to_json(self) -> dict[str, Any]:
        """The form in which it stands in plans."""
        return {
            "include": list(self.include),
            "exclude": list(self.exclude),
            "align": self.align,
            "only_convolutions": self.only_convolutions,
            "min_units": self.min_units,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Limits:
        """Read what :meth:`to_json` gave; plans of version 0.1 know no ``min_units``."""
        return cls(
            tuple(map(str, value["include"])),
            tuple(map(str, value["exclude"])),
            int(value["align"]),
            bool(value.get("only_convolutions", False)),
            int(value.get("min_units", 1)),
        )


def fast_multiple() -> int:
    """Channels whose multiples ONNX Runtime's convolutions are fast at on this machine."""
    wide = any(flag.startswith("avx512") for flag in fingerprint()["cpu_flags"])
    return 16 if wide else 8


def group_names(analysis: Analysis, group: Group) -> list[str]:
    """By what a group is called: itself, and the nodes and parameters that produce or carry it.

    Consumers are left out: who protects a layer means its own channels.
    """
    consumed = {touch.weight for touch in group.touches if touch.role == "consumer"}
    produced = {touch.weight for touch in group.touches if touch.role != "consumer"}
    weights = {
        ref[0]
        for ref in group.slices
        if ref[0] in analysis.model.graph.initializers and (ref in produced or ref not in consumed)
    }
    nodes = {touch.node for touch in group.touches if touch.role != "consumer"}
    return sorted({group.name} | weights | nodes)
