"""One table of units for all probes of a trip: systemd gives each unit's properties in one lump, and
the same services are of interest to many.

A probe says by :class:`UnitQuery` what it needs; the trip asks systemd for everything together, beside the
probes that need nothing of it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

import msgspec

__all__ = ["PRINT_UNITS", "UnitQuery", "table_script"]

#: Bash: prints the table as ``systemctl show`` does, with more units and properties than were asked for.
#: Environments may hold secrets and stay in the guest; systemctl prints each on one line.
PRINT_UNITS = (
    r"""((${#pn_units[@]})) && printf '%s\n' "${pn_units[@]/#Environment=*/Environment=}" """
)

# A unit that is neither loaded nor on disk has more than 200 properties all the same. ListUnitsByNames
# loads each that there is and tells its state, for all in one answer; only a unit that does not
# exist is described by its own name. In JSON no description can end its string and imitate another
# unit. Without a bus busctl says nothing, and all are shown.
_SHOW = r"""
pn_show_units() {{
  local -A wanted=()
  local name first second listing=
  local -a named=({named}) light=({light})
  for name in "${{named[@]}}"; do wanted[$name]=1; done
  {services}
  if ((${{#light[@]}})); then
    listing=$(timeout 20 busctl --system --json=short call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
      org.freedesktop.systemd1.Manager ListUnitsByNames as ${{#light[@]}} "${{light[@]}}")
    for name in "${{light[@]}}"; do
      if [[ $listing == *"[\"$name\",\"$name\",\"not-found\",\"inactive\",\"dead\","* ]]; then
        printf 'Id=%s\nNames=%s\nLoadState=not-found\nActiveState=inactive\nSubState=dead\n\n' "$name" "$name"
      else
        wanted[$name]=1
      fi
    done
  fi
  ((${{#wanted[@]}})) && systemctl show --no-pager --property={properties} -- "${{!wanted[@]}}"
}}
"""
# Without a list systemctl itself finds them; a unit that is then shown twice may be contested.
_SERVICES = r"""
  while read -r first second _; do
    [[ $first == *.service ]] || first=$second
    [[ $first == *.service ]] && wanted[$first]=1
  done < <(systemctl list-units --type=service --plain --no-legend --no-pager --full || echo '*.service')
"""
#: What tells whether a unit exists and runs.
_STATE = ("Id", "Names", "LoadState", "ActiveState", "SubState")


class UnitQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What a probe needs of the table of units.

    :param names: units by full name, as :func:`~pytest_nixos.observe.systemd.unit.askable_units` gives them.
    :param light: as `names`; those of which only the state is of interest, ``LoadState``,
        ``ActiveState`` and ``SubState``. One that does not exist has no other property.
    :param services: whether all services that are not inactive belong to it.
    :param properties: as ``systemctl show`` names them.
    """

    names: tuple[str, ...] = ()
    light: tuple[str, ...] = ()
    services: bool = False
    properties: tuple[str, ...] = ()

    @classmethod
    def together(cls, queries: Iterable[UnitQuery]) -> UnitQuery:
        """Return the query for all that `queries` ask."""
        asked = list(queries)
        named = dict.fromkeys(name for query in asked for name in query.names)
        light = dict.fromkeys(name for query in asked for name in query.light if name not in named)
        return cls(
            names=tuple(named),
            light=tuple(light),
            services=any(query.services for query in asked),
            properties=tuple(dict.fromkeys(p for query in asked for p in query.properties)),
        )

    def covers(self, other: UnitQuery) -> bool:
        """Whether a table that was shown for this query tells all that `other` asks."""
        return (
            {*other.names} <= {*self.names}
            and {*other.light} <= {*self.names, *self.light}
            and other.services <= self.services
            and {*other.properties} <= {*self.properties}
        )


def table_script(query: UnitQuery) -> str:
    """Return bash that defines ``pn_show_units``, which prints what `query` asks."""
    properties = dict.fromkeys((*_STATE, *(p for p in query.properties if p.isalnum())))
    return _SHOW.format(
        named=shlex.join(query.names),
        light=shlex.join(query.light),
        services=_SERVICES if query.services else "",
        properties=shlex.quote(",".join(properties)),
    )
