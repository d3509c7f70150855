"""A guard over what clears up after a failed test, and examples that are drawn alike in every run."""

import faulthandler
from collections.abc import Generator

import hypothesis
import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

SECONDS = 120

hypothesis.settings.register_profile(
    "still", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("still")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Once a test has failed, both time limits of pytest.ini_options are off: what hangs in a fixture's end,
    maybe the very fault that made it fail, would hang for ever. This ends the process and shows where it was.
    """
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=item.config.stash[fault_handler_stderr_fd_key])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
