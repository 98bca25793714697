"""Which worker of xdist gets which tests; only runs with workers load it."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.plugin.stash import SESSION

__all__ = ["HostScheduling"]


class HostScheduling(LoadScopeScheduling):
    """Tests of one host go to one worker; other tests go anywhere. A test whose worker died is
    not tried again.

    A host whose VM has a snapshot is no reason to stay on one worker, because each clones it: there
    tests go by host and module, whose fixtures tell one story.
    """

    def remove_node(self, node: Any) -> str | None:
        """Give the tests of a worker that died to another one, but the one that it died of.

        xdist would start that again with each worker that it puts in place, until it starts no
        more, and with one worker wait for ever then.
        """
        crashed: str | None = super().remove_node(node)
        if crashed is not None:
            for scope, unit in list(self.workqueue.items()):
                if crashed in unit:
                    unit[crashed] = True
                    if all(unit.values()):
                        del self.workqueue[scope]
        return crashed

    def _split_scope(self, nodeid: str) -> str:
        session: NixosSession = self.config.stash[SESSION]
        _, bracket, parameters = nodeid.rstrip("]").partition("[")
        matching = [
            key for key in session.host_keys if bracket and f"{parameters}-".startswith(f"{key}-")
        ]
        if not matching:
            return nodeid
        key = max(matching, key=len)
        if subject := session.entry(key).subject:
            return subject  # the stages of an upgrade test share one machine
        return f"{key}@{nodeid.partition('::')[0]}" if session.clones(key) else key
