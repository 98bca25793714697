"""A fresh machine between tests, clone against reboot, and the memory of several clones."""

from __future__ import annotations

from pathlib import Path

from tests.bench.figures import Bar, Goal, Sample, Section, at_most
from tests.bench.rig import Plan, measure_inside, say

_MANY, _MANY_MIB = 16, 1024


def measure(home: Path, plan: Plan) -> Section:
    say("clones: saving a snapshot, then clones of it")
    measured = measure_inside(home, "measure_clones.py", plan=plan)
    say("clones: reboots")
    runs = str(1 if plan.quick else 2)
    reboots = measure_inside(
        home, "measure_reboot.py", "--nixos-snapshot", "off",
        plan=plan, environment={"PYTEST_NIXOS_BENCH_RUNS": runs},
    )  # fmt: skip
    clone = Sample(values=tuple(measured["starts_s"]), unit="s")
    reboot = Sample(values=tuple(reboots), unit="s")
    memory = {int(number): mib for number, mib in measured["memory_mib"].items()}
    rows = [
        ("a clone: wanted to its first command's answer", str(clone)),
        ("a reboot: orderly shutdown, boot, first command's answer", str(reboot)),
        *((f"memory of {number} machines (PSS of QEMU)", f"{mib:.0f} MiB") for number, mib in memory.items()),
    ]  # fmt: skip
    if measured["refused"]:
        rows.append(("the next clone", measured["refused"].splitlines()[0]))
    most = max(memory)
    return Section(
        name="clones",
        title="A fresh machine between tests",
        lead=(
            "What `nixos_fresh_machine` costs: a clone of the snapshot against a reboot of the machine. Clones are started one after the other and all stay "
            "up; the first machine of the run counts as the first clone. PSS counts memory pages that several share once."
        ),
        header=("what", "median"),
        rows=tuple(rows),
        goals=(
            Goal(
                wanted="a clone is ready sooner than a reboot",
                got=f"{reboot.median / clone.median:.0f} times",
                reached=clone.median < reboot.median,
                reason="the snapshot was not used: see the run's own messages",
            ),
            Goal(
                wanted=f"{most} clones need less than {most} times the memory of one",
                got=f"{memory[most] / memory[1]:.1f} times",
                reached=most > 1 and memory[most] < most * memory[1],
                reason="there was no memory for a second one",
            ),
            *(
                [
                    at_most(
                        f"{_MANY} clones, memory together",
                        memory[_MANY],
                        _MANY_MIB,
                        unit="MiB",
                        reason="pages of each clone's own: most is the code that an emulating QEMU has translated, then its heap and tables, and what the guest writes",
                    )
                ]
                if _MANY in memory
                else ()
            ),
        ),
        bars=(
            Bar(label="clone", value=clone.median, ours=True),
            Bar(label="reboot", value=reboot.median, ours=False),
        ),
        bars_title="A fresh machine for a test",
        bars_unit="s",
    )
