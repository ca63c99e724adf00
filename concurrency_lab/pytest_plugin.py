"""For pytest: a failed `assert explore(...).ok` shows the failing schedule, step by step.

pytest finds the plugin by itself where `concurrency_lab` is installed.
"""

import sys

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    explorer = sys.modules.get("concurrency_lab.explorer.result")
    if explorer is not None:
        if report.when == "call" and report.failed and explorer.last_not_ok is not None:
            report.sections.append(("failing schedule", str(explorer.last_not_ok)))
        explorer.last_not_ok = None
    return report
