"""``host.process``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from testinfra.modules.process import PosixProcess, int_or_float

__all__ = ["NixosProcess", "is_comm_of"]

_WIDTH = 50  # columns of `ps`, as wide as its longest attribute needs
_LSTART_WIDTH = 24  # "Sat Nov 21 01:35:19 2026"
_COMM_MAX = 15  # the kernel's TASK_COMM_LEN without its NUL


class NixosProcess(PosixProcess):
    """Test processes.

    Many NixOS programs run from wrappers, so that the kernel calls ``ollama`` ``.ollama-wrapped``,
    cut to 15 characters: ``filter(comm="ollama")`` finds them too. Names with blanks are read
    whole.
    """

    @classmethod
    def get_module_class(cls, _host: Any) -> type[NixosProcess]:
        return cls

    def filter(self, **filters: Any) -> Sequence[Any]:
        """Return the processes with these attributes; see ps(1) for their names."""
        comm = filters.pop("comm", None)
        found = super().filter(**filters)
        return [p for p in found if comm is None or is_comm_of(str(p.comm), str(comm))]

    def _get_processes(self, **filters: Any) -> Sequence[Mapping[str, Any]]:
        names = sorted({"pid", "comm", "pcpu", "pmem", *filters} - {"lstart", "args"})
        columns = ",".join(f"{name}:{_WIDTH}" for name in names)
        text = self.check_output("LC_ALL=C ps -Aww -o %s", f"{columns},lstart,args")
        return [_parse_line(line, names) for line in text.splitlines()[1:]]

    def _get_process_attribute_by_pid(self, pid: int, name: str) -> Mapping[str, Any]:
        text = self.check_output("LC_ALL=C ps -ww -p %s -o lstart,%s", str(pid), name)
        line = text.splitlines()[1]
        return {
            "lstart": line[:_LSTART_WIDTH].strip(),
            name: int_or_float(line[_LSTART_WIDTH:].strip()),
        }


def is_comm_of(comm: str, program: str) -> bool:
    """Whether the kernel's `comm` is that of `program`, wrapped or not, cut at 15 characters."""
    return comm in (program[:_COMM_MAX], f".{program}-wrapped"[:_COMM_MAX], program)


def _parse_line(line: str, names: Sequence[str]) -> Mapping[str, Any]:
    attributes: dict[str, Any] = {}
    for column, name in enumerate(names):
        start = column * (_WIDTH + 1)
        attributes[name] = int_or_float(line[start : start + _WIDTH].strip())
    rest = line[len(names) * (_WIDTH + 1) :]
    attributes["lstart"] = rest[:_LSTART_WIDTH].strip()
    attributes["args"] = rest[_LSTART_WIDTH:].strip()
    return attributes
