"""What went over a cluster's networks, kept beside a test that failed on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import pytest

from pytest_nixos.machine.cluster.cluster import Cluster

__all__ = ["FIXTURE", "NetworkCaptures"]

#: Tests that use it, by way of others too, have the captures.
FIXTURE = "nixos_cluster"
_ODD = re.compile(r"[^A-Za-z0-9.-]+")


class NetworkCaptures:
    """Writes a pcap of each network of the running clusters when a test of them fails, and names
    the file in its report.

    :param clusters: gives the running clusters.
    :param make_directory: makes a new directory, of the name that it is given.
    """

    def __init__(
        self, clusters: Callable[[], Iterable[Cluster]], make_directory: Callable[[str], Path]
    ) -> None:
        self._clusters = clusters
        self._make_directory = make_directory

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Attach the captures to the report of a failure."""
        report = yield
        used = FIXTURE in getattr(item, "fixturenames", ())
        if report.when == "call" and report.failed and used:
            report.sections += [
                (f"frames of {', '.join(cluster)} on {network}", str(path))
                for cluster in self._clusters()
                for network, path in self._written(cluster)
            ]
        return report

    def _written(self, cluster: Cluster) -> list[tuple[str, Path]]:
        directory = self._make_directory("networks")
        return [
            (
                network,
                cluster.capture(directory / f"{_ODD.sub('-', network)}.pcap", network=network),
            )
            for network in cluster.networks
        ]
